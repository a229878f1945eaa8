"""Start vLLM and its OpenAI app inside our process, and the few things the server asks of them.

vLLM's options stay vLLM's: what `serve` does not know itself is handed to vLLM's own argument parser. Only
defaults differ, and only where a LoRA server or a CPU wants another one.
"""

import asyncio
import gc
import logging
import os
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from fastapi import FastAPI
from huggingface_hub import snapshot_download
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.prometheus import get_prometheus_registry

from server.engine.client import (
    calls_end_with_engine,
    client_beside_others,
    cpu_seconds,
    engine_processes,
)
from server.engine.folding import why_not_foldable
from server.engine.lora_info import bound_lora_info
from server.engine.spec import Component, encode_spec
from server.engine.token_charge import count_tokens

logger = logging.getLogger(__name__)

IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
PREPARE_POLL_SECONDS = 0.002
BYTES_A_TOKEN = 64
"""No request that fits its context has more, JSON's escapes and a field's name included."""
LEAST_BODY, PICTURES_BODY = 2 << 20, 32 << 20
WORKER_EXTENSION = "server.engine.worker.CompositionWorkerExtension"


EngineDied = EngineDeadError
"""vLLM's own: whatever was in flight is lost."""


class AdapterNotPrepared(Exception):
    """The engine refused to build an adapter; it goes on serving the others."""


class PluginMissing(RuntimeError):
    """A vLLM process runs without our overrides, so its answers could be another adapter's."""


@dataclass(frozen=True)
class Engine:
    """The running engine. It knows LoRA ids and specs; what is resident is `Residency`'s to know."""

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
    """Whether the kernels take weights per request: one build then serves every weighting of its members."""

    @property
    def slots(self) -> int:
        """How many sets of adapters can be in use at a time. Where slots hold factors, one is the base's own
        residual's while something is fused."""
        return self.max_loras if self.runtime_weights else max(1, self.max_loras - 1)

    @property
    def longest_body(self) -> int:
        """Bytes of JSON that a request may have: parsing more would only keep others waiting."""
        if self.client.model_config.is_multimodal_model:
            return PICTURES_BODY
        return max(LEAST_BODY, self.max_model_len * BYTES_A_TOKEN)

    @property
    def checkpoint_bytes(self) -> int:
        """What a switch of the base reads."""
        return sum(path.stat().st_size for path in self.model_dir.glob("*.safetensors"))

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None:
        """Build in the workers' background; returns when every worker has it.

        Raises AdapterNotPrepared, and then nothing has changed.
        """
        spec, pause = encode_spec(components), PREPARE_POLL_SECONDS
        while True:
            states = await self.client.collective_rpc("prepare_adapter", args=(lora_int_id, spec))
            for state, reason in states:
                if state == "failed":
                    raise AdapterNotPrepared(reason)
            if all(state == "prepared" for state, _ in states):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, PREPARE_POLL_SECONDS * 50)

    async def forget(self, lora_int_id: int, components: Sequence[Component]) -> None:
        """Take it out of the workers' memory. It must have no request in flight."""
        await self.client.collective_rpc("forget_adapter", args=(lora_int_id, encode_spec(components)))

    def offer(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None:
        """Let vLLM's app answer to `name`."""
        self.models.lora_requests[name] = LoRARequest(name, lora_int_id, encode_spec(components))

    def retract(self, name: str) -> None:
        """vLLM's app no longer answers to `name`."""
        self.models.lora_requests.pop(name, None)

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None:
        """What keeps these from being fused into the base, in words; None where nothing does."""
        return await asyncio.to_thread(why_not_foldable, self.model_dir, components)

    async def load_base(self, components: Sequence[Component], progress: Path) -> float:
        """Load the base with `components` folded in, or plain; gives the seconds generation stood still.

        Requests in flight are frozen meanwhile and go on afterwards. What they have in the KV cache is
        computed anew: no block of it outlives the weights it was made with. Where this raises, generation
        stays paused.
        """
        started = time.perf_counter()
        await self.client.pause_generation(mode="keep", clear_cache=True)
        args = (str(self.model_dir), encode_spec(components), str(progress))
        await self.client.collective_rpc("load_base", args=args)
        await self.client.resume_generation()
        return time.perf_counter() - started

    async def stop_serving(self) -> None:
        """End every request in flight, and begin none: there is no base to answer with."""
        await self.client.pause_generation(mode="abort")

    async def read_meter(self) -> dict[str, Any]:
        """The first worker's account of tokens and LoRA costs since the last call (see `metering`)."""
        readings: list[dict[str, Any]] = await self.client.collective_rpc("read_meter")
        return readings[0]

    async def resident(self) -> list[dict[str, Any]]:
        """What each worker says it has: `bytes` by directory (or by LoRA id) of each build, and `slots`."""
        found: list[dict[str, Any]] = await self.client.collective_rpc("prepared_adapters")
        return found

    async def is_healthy(self) -> bool:
        """Whether vLLM holds its engine for alive."""
        try:
            await self.client.check_health()
        except EngineDeadError:
            return False
        return True

    def is_alive(self) -> bool:
        """As far as is known without asking."""
        return not self.client.errored

    async def beat(self) -> None:
        """Returns as soon as the engine has a moment. Raises EngineDeadError."""
        await self.client.collective_rpc("lora_backend")

    def cpu_seconds(self) -> float:
        """Used so far by the engine's processes that are there."""
        return sum(map(cpu_seconds, engine_processes(self.client)))

    def kill(self) -> None:
        """End its processes at once, stopped ones too."""
        for process in engine_processes(self.client):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def metrics_registry(self) -> Any:
        """The Prometheus registry vLLM's own metrics are in."""
        return get_prometheus_registry()


def parse_vllm_args(arguments: Sequence[str]) -> Namespace:
    """vLLM's own parser with our defaults. Exits with vLLM's message for an unknown or ill-typed option."""
    parser = make_arg_parser(FlexibleArgumentParser(prog="lora-compose serve"))
    parser.set_defaults(
        enable_lora=True,
        max_loras=8,
        max_lora_rank=64,
        max_cpu_loras=64,
        worker_extension_cls=WORKER_EXTENSION,
        disable_fastapi_docs=True,
        shutdown_timeout=5,
    )
    if current_platform.is_cpu():
        # Measured on CPUs without AVX512-BF16: float32 is twice as fast as bfloat16, and exact.
        parser.set_defaults(enforce_eager=True, dtype="float32")
    args = parser.parse_args(list(arguments))
    if current_platform.is_cpu() and _is_one_process(args):
        args.distributed_executor_backend = IN_PROCESS
    validate_parsed_serve_args(args)
    return args


def _is_one_process(args: Namespace) -> bool:
    """Whether the model can run in the engine's own process.

    The default of vLLM on CPUs is a worker process that spins for work: on two cores that costs a third
    to two thirds of the throughput and all of its steadiness (docs/cpu-performance.md).
    """
    workers = args.tensor_parallel_size * args.pipeline_parallel_size
    return args.distributed_executor_backend is None and bool(workers == 1)


def set_environment(model: str) -> None:
    """Defaults vLLM and the Hub client read from the environment; what is set already stays."""
    if current_platform.is_cpu():
        # vLLM compiles a few samplers' helpers at their first use, which takes seconds and a C++ compiler; a
        # machine without one would lose its engine to the first request for logprobs.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        # One core is the HTTP server's. An OpenMP team on all of them waits at every barrier for that one.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A process that serves has threads, and a fork of it could inherit a lock that nobody gives back.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@asynccontextmanager
async def launch(
    args: Namespace, *, lora_requests_info: bool = False, beside_others: bool = False
) -> AsyncIterator[Engine]:
    """The engine, running for as long as the context is open.

    `lora_requests_info` publishes vLLM's metric of that name.
    `beside_others`: this event loop has others to answer meanwhile, and must not stand still.
    Raises PluginMissing where it would answer wrongly.
    """
    async with (
        client_beside_others(args) if beside_others else build_async_engine_client(args) as client,
        calls_end_with_engine(client),
    ):
        runtime_weights = await _check_plugin(client)
        bound_lora_info(client, lora_requests_info)
        count_tokens(client)
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        config = client.vllm_config
        # vLLM's app freezes the heap as it starts. The last engine's client is frozen and full of cycles: it
        # would stay for ever, with its ZeroMQ threads, pipes and memory.
        gc.unfreeze()
        async with app.router.lifespan_context(app):
            yield Engine(
                client=client,
                app=app,
                models=app.state.openai_serving_models,
                base=app.state.openai_serving_models.base_model_paths[0].name,
                model_dir=_directory_of(args),
                max_model_len=config.model_config.max_model_len,
                max_lora_rank=config.lora_config.max_lora_rank,
                max_loras=config.lora_config.max_loras,
                max_cpu_loras=config.lora_config.max_cpu_loras,
                dtype=config.lora_config.lora_dtype,
                runtime_weights=runtime_weights,
            )


async def _check_plugin(client: Any) -> bool:
    """Whether the workers weigh rows per request. Raises PluginMissing."""
    backends = await client.collective_rpc("lora_backend")
    for backend in backends:
        grouped = backend["grouped"] or not current_platform.is_cpu()
        if not (backend["composes"] and grouped):
            raise PluginMissing(
                f"vLLM's worker runs without lora-compose's plugin ({backend}); is the package installed in "
                "this environment, and does VLLM_PLUGINS (if set) name lora_compose?"
            )
    return all(backend["runtime_weights"] for backend in backends)


def _directory_of(args: Namespace) -> Path:
    """Where the model's files are: the directory given, or the Hub cache's snapshot that vLLM just read."""
    if Path(args.model).is_dir():
        return Path(args.model).resolve()
    return Path(snapshot_download(args.model, revision=args.revision, local_files_only=True))
