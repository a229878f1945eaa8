"""vLLM inside this process, with the product's plugin, worker extension and composition specs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.spec import Component, encode_spec

Weights = Mapping[int, float]
"""The number of an adapter to its weight. An empty one is the base."""
WORKER_EXTENSION = "lora_compose.server.engine.worker.extension.CompositionWorkerExtension"
OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "enable_lora": True,
    "max_loras": 8,
    "max_lora_rank": 64,
    "max_cpu_loras": 32,
    "worker_extension_cls": WORKER_EXTENSION,
    "enable_prefix_caching": False,
    "max_model_len": 1024,
    "max_num_seqs": 64,
    "disable_log_stats": True,
    "seed": 0,
    "dtype": "bfloat16",
}
CPU_OPTIONS = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 128 << 20}
GRAPH_SIZES = [1, 2, 4, 8, 16, 32]


def graph_options(run: CheckRun) -> dict[str, Any]:
    """Full CUDA graphs for decoding, without Inductor: this needs no compiler of a newer torch."""
    if run.on_cpu:
        return {}
    graphs = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": GRAPH_SIZES}
    return {"compilation_config": graphs}


def _options(run: CheckRun) -> dict[str, Any]:
    return {"additional_config": {"lora_kernels": run.kernels}} | (CPU_OPTIONS if run.on_cpu else {})


@dataclass(frozen=True)
class EngineAnswer:
    """The answer to one request: its tokens and, for each token, the logprobs of the five best."""

    tokens: list[int]
    best: list[dict[int, float]]


class InProcessEngine:
    """A model, a directory of adapters `a0`, `a1`, …, and vLLM's `LLM` over them."""

    def __init__(self, run: CheckRun, model: Path, adapters: Path, **options: Any) -> None:
        self.adapters, self.model = adapters, model
        began = time.perf_counter()
        self.llm = LLM(model=str(model), **OPTIONS | _options(run) | options)
        self.start_seconds = time.perf_counter() - began
        self.call_seconds: list[float] = []
        """How long each call of the last `prepare` took: the engine's thread does nothing else meanwhile."""
        self._ids: dict[str, int] = {}
        self._added = 0
        self.runtime_weights = bool(self.rpc("lora_backend")[0]["runtime_weights"])
        """True if requests for the same adapters have one id at any weights."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return int(self.llm.llm_engine.model_config.get_vocab_size())

    @property
    def is_busy(self) -> bool:
        """Whether an added request is not finished."""
        return bool(self.llm.llm_engine.has_unfinished_requests())

    def facts(self) -> dict[str, Any]:
        """What vLLM really runs: LoRA kernels, model runner, graphs."""
        config = self.llm.llm_engine.vllm_config
        return {
            "backend": self.rpc("lora_backend")[0],
            "v2_runner": bool(getattr(config, "use_v2_model_runner", False)),
            "cudagraph_mode": str(config.compilation_config.cudagraph_mode),
            "compile_mode": str(config.compilation_config.mode),
        }

    def spec(self, weights: Weights) -> str:
        """The composition in the product's text form."""
        members = sorted(weights.items())
        return encode_spec([Component(str(self.adapters / f"a{n}"), weight) for n, weight in members])

    def request(self, weights: Weights) -> Any:
        """vLLM's LoRA request for a composition; None for the base."""
        return LoRARequest(*self._identity(weights)) if weights else None

    def _identity(self, weights: Weights) -> tuple[str, int, str]:
        """Name, id and path, as the product's server gives them."""
        spec = self.spec(weights)
        key = str(sorted(weights)) if self.runtime_weights else spec
        number = self._ids.setdefault(key, len(self._ids) + 1)
        return spec if self.runtime_weights else f"c{number}", number, spec

    def rpc(self, method: str | Callable[..., Any], *args: Any) -> list[Any]:
        """What each worker returns."""
        return list(self.llm.collective_rpc(method, args=args))

    def prepare(self, weights: Weights, meanwhile: Callable[[], None] = lambda: time.sleep(0.002)) -> float:
        """Seconds until the workers have built the composition, asked as the product's server asks them.

        Raises RuntimeError with the reason if the build fails.
        """
        _, number, spec = self._identity(weights)
        self.call_seconds = []
        began = time.perf_counter()
        while True:
            at = time.perf_counter()
            state, reason = self.rpc("prepare_adapter", number, spec)[0]
            self.call_seconds.append(time.perf_counter() - at)
            if state == "failed":
                raise RuntimeError(reason)
            if state == "prepared":
                return time.perf_counter() - began
            meanwhile()

    def unload(self, weights: Weights) -> None:
        """Free what is built for a composition. No request may use it."""
        _, number, spec = self._identity(weights)
        self.rpc("unload_adapter", number, spec)

    def load_base(self, weights: Weights, progress: Path) -> None:
        """Fuse a composition into the base; an empty one restores the base.

        As the product's server does it. In this process nothing runs meanwhile, and no prefix cache exists.
        """
        self.rpc("load_base", str(self.model), self.spec(weights), str(progress))

    def add(self, prompt: Sequence[int], weights: Weights, tokens: int) -> None:
        """Add a request that `step` works on."""
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        self._added += 1
        inputs = {"prompt_token_ids": list(prompt)}
        self.llm.llm_engine.add_request(str(self._added), inputs, params, lora_request=self.request(weights))

    def step(self) -> float:
        """The seconds of one engine step."""
        began = time.perf_counter()
        self.llm.llm_engine.step()
        return time.perf_counter() - began

    def generate(
        self, prompts: Sequence[Sequence[int]], weights: Sequence[Weights], tokens: int
    ) -> list[EngineAnswer]:
        """Greedy answers, all in one batch."""
        params = SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, logprobs=5
        )
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            params,
            lora_request=[self.request(one) for one in weights],
            use_tqdm=False,
        )
        return [_answer(output.outputs[0]) for output in outputs]


def _answer(completion: Any) -> EngineAnswer:
    best = [{token: entry.logprob for token, entry in at.items()} for at in completion.logprobs]
    return EngineAnswer(list(completion.token_ids), best)
