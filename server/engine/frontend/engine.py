"""The running engine, as the server uses it. `launch` makes one."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from fastapi import FastAPI
from starlette.routing import Route
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.prometheus import get_prometheus_registry

from lora_compose.server.engine.errors import AdapterNotPrepared
from lora_compose.server.engine.frontend.client import cpu_seconds, engine_died, engine_processes
from lora_compose.server.engine.frontend.inspection import refused_fields
from lora_compose.server.engine.spec import Component, encode_spec
from lora_compose.server.engine.worker.folding import why_not_foldable

PREPARE_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Engine:
    """The running engine.

    It knows LoRA ids and specs; `ResidencyScheduler` knows which adapters are loaded."""

    client: Any
    app: FastAPI
    models: Any
    base: str
    model_dir: Path
    max_model_len: int
    max_lora_rank: int
    max_loras: int
    max_cpu_loras: int
    dtype: torch.dtype
    runtime_weights: bool
    """True if the kernels apply weights per request, so that one build of an adapter serves every weight."""
    scales_rows: bool
    """True if the kernels scale and shift the rows of a layer's output, which DoRA and `lora_bias` need."""
    special_token_ids: frozenset[int]
    """Tokens that are not a part of a text, such as the one that ends an answer."""
    parses_tools: bool
    """True if an answer's tool calls are separated from its text."""
    parses_reasoning: bool
    """True if an answer's reasoning is separated from its text."""
    lora_modules: frozenset[str] | None = None
    """The last parts of the names of the modules that adapters may change; None: every linear layer."""
    embedding_modules: frozenset[str] = frozenset()
    """The same for the input embedding and the output head, such as "embed_tokens" and "lm_head"."""
    tied_embeddings: bool = False
    """True if the output head has the weight of the input embedding. Then nothing is fused into it."""
    other_names: tuple[str, ...] = ()
    """Further names of the base in requests. Responses name `base`."""

    @cached_property
    def paths(self) -> frozenset[str]:
        """The paths of vLLM's app. They depend on the base and on vLLM's options."""
        return frozenset(route.path for route in self.app.routes if isinstance(route, Route))

    @property
    def stores_responses(self) -> bool:
        """Whether vLLM keeps the responses of `/v1/responses`."""
        return bool(self.app.state.openai_serving_responses.enable_store)

    async def background_ended(self, response_id: str) -> None:
        """Return when vLLM no longer works on this response of `/v1/responses` in the background."""
        task = self.app.state.openai_serving_responses.background_tasks.get(response_id)
        if task is not None:
            await asyncio.wait([task])

    @property
    def refused_fields(self) -> dict[str, str]:
        """The fields of an adapter's config that cannot be served here, and why not."""
        refused = refused_fields(scales_rows=self.scales_rows)
        quantization = self.client.model_config.quantization
        if quantization is not None and "use_dora" not in refused:
            reason = f"the base is quantized ({quantization}), and DoRA needs the exact norms of its rows"
            refused["use_dora"] = reason
        return refused

    @property
    def slots(self) -> int:
        """How many sets of adapters can be in use at a time.

        If slots hold factors, one slot is set aside for the residual of the base while a composition is
        fused."""
        return self.max_loras if self.runtime_weights else max(1, self.max_loras - 1)

    @property
    def takes_pictures(self) -> bool:
        """True if the model is multimodal."""
        return bool(self.client.model_config.is_multimodal_model)

    @property
    def checkpoint_bytes(self) -> int:
        """The size of the files that a switch of the base weights reads."""
        return sum(path.stat().st_size for path in self.model_dir.glob("*.safetensors"))

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None:
        """Build an adapter in the background of the workers. Returns when every worker has it.

        Raises AdapterNotPrepared; then nothing has changed.
        """
        spec, pause = encode_spec(components), PREPARE_POLL_SECONDS
        while True:
            states = await self._call("prepare_adapter", lora_int_id, spec)
            for state, reason in states:
                if state == "failed":
                    raise AdapterNotPrepared(reason)
            if all(state == "prepared" for state, _ in states):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, PREPARE_POLL_SECONDS * 50)

    async def unload(self, lora_int_id: int, components: Sequence[Component]) -> None:
        """Remove an adapter from the workers' memory. It must have no request in flight."""
        await self._call("unload_adapter", lora_int_id, encode_spec(components))

    def expose(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None:
        """Let vLLM's app serve the model `name`."""
        self.models.lora_requests[name] = LoRARequest(name, lora_int_id, encode_spec(components))

    def hide(self, name: str) -> None:
        """Stop vLLM's app from serving the model `name`."""
        self.models.lora_requests.pop(name, None)

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None:
        """The reason why these cannot be fused into the base, as a sentence part; None if they can."""
        kept = self.embedding_modules if self.tied_embeddings else ()
        return await asyncio.to_thread(why_not_foldable, self.model_dir, components, kept)

    async def load_base(self, components: Sequence[Component], progress: Path) -> float:
        """Load the base weights with `components` folded in, or plain without any.

        Returns the seconds that generation was paused. Requests in flight are paused too and continue
        afterwards. Their KV cache is computed again, because no block may outlive the weights it was made
        with. If this raises, generation stays paused.
        """
        started = time.perf_counter()
        with engine_died():
            await self.client.pause_generation(mode="keep", clear_cache=True)
            await self._call("load_base", str(self.model_dir), encode_spec(components), str(progress))
            await self.client.resume_generation()
        return time.perf_counter() - started

    async def stop_serving(self) -> None:
        """Abort every request in flight and accept no new one. Used when the base weights are lost."""
        with engine_died():
            await self.client.pause_generation(mode="abort")

    async def read_meter(self) -> dict[str, Any]:
        """The first worker's tokens and LoRA costs since the last call (see `cost_meter`)."""
        reading: dict[str, Any] = (await self._call("read_meter"))[0]
        return reading

    async def resident(self) -> list[dict[str, Any]]:
        """What each worker reports: `bytes` by directory (or by LoRA id) of each build, and `slots`."""
        return await self._call("prepared_adapters")

    async def is_healthy(self) -> bool:
        """True if vLLM's health check passes."""
        try:
            await self.client.check_health()
        except EngineDeadError:
            return False
        return True

    def is_alive(self) -> bool:
        """False if vLLM has seen an error of the engine. Does not ask the engine."""
        return not self.client.errored

    async def ping(self) -> None:
        """Return when the engine has answered. Raises EngineDied."""
        await self._call("lora_backend")

    def cpu_seconds(self) -> float:
        """CPU time that the engine's existing processes have used."""
        return sum(map(cpu_seconds, self._processes))

    @cached_property
    def _processes(self) -> list[psutil.Process]:
        """The processes of the running engine. It starts no other later.

        Finding them reads the state of every process of the machine, which takes milliseconds of the event
        loop. The watchdog asks several times a second."""
        return engine_processes(self.client)

    def kill(self) -> None:
        """Kill its processes at once, also those that are stopped."""
        for process in engine_processes(self.client):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    async def _call(self, method: str, *args: Any) -> list[Any]:
        """The answer of each worker. Raises EngineDied."""
        with engine_died():
            answers: list[Any] = await self.client.collective_rpc(method, args=args)
            return answers

    @property
    def metrics_registry(self) -> Any:
        """The Prometheus registry that holds vLLM's own metrics."""
        return get_prometheus_registry()
