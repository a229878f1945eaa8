"""The running engine, and what the server asks of it. `launch` makes one."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from fastapi import FastAPI
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.prometheus import get_prometheus_registry

from lora_compose.server.engine.errors import AdapterNotPrepared
from lora_compose.server.engine.frontend.client import cpu_seconds, engine_died, engine_processes
from lora_compose.server.engine.spec import Component, encode_spec
from lora_compose.server.engine.worker.folding import why_not_foldable

PREPARE_POLL_SECONDS = 0.002


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
    def takes_pictures(self) -> bool:
        """Whether the model is multimodal."""
        return bool(self.client.model_config.is_multimodal_model)

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
            states = await self._call("prepare_adapter", lora_int_id, spec)
            for state, reason in states:
                if state == "failed":
                    raise AdapterNotPrepared(reason)
            if all(state == "prepared" for state, _ in states):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, PREPARE_POLL_SECONDS * 50)

    async def forget(self, lora_int_id: int, components: Sequence[Component]) -> None:
        """Take it out of the workers' memory. It must have no request in flight."""
        await self._call("forget_adapter", lora_int_id, encode_spec(components))

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
        with engine_died():
            await self.client.pause_generation(mode="keep", clear_cache=True)
            await self._call("load_base", str(self.model_dir), encode_spec(components), str(progress))
            await self.client.resume_generation()
        return time.perf_counter() - started

    async def stop_serving(self) -> None:
        """End every request in flight, and begin none: there is no base to answer with."""
        with engine_died():
            await self.client.pause_generation(mode="abort")

    async def read_meter(self) -> dict[str, Any]:
        """The first worker's account of tokens and LoRA costs since the last call (see `metering`)."""
        reading: dict[str, Any] = (await self._call("read_meter"))[0]
        return reading

    async def resident(self) -> list[dict[str, Any]]:
        """What each worker says it has: `bytes` by directory (or by LoRA id) of each build, and `slots`."""
        return await self._call("prepared_adapters")

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
        """Returns as soon as the engine has a moment. Raises EngineDied."""
        await self._call("lora_backend")

    def cpu_seconds(self) -> float:
        """Used so far by the engine's processes that are there."""
        return sum(map(cpu_seconds, engine_processes(self.client)))

    def kill(self) -> None:
        """End its processes at once, stopped ones too."""
        for process in engine_processes(self.client):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    async def _call(self, method: str, *args: Any) -> list[Any]:
        """What each worker answers. Raises EngineDied."""
        with engine_died():
            answers: list[Any] = await self.client.collective_rpc(method, args=args)
            return answers

    @property
    def metrics_registry(self) -> Any:
        """The Prometheus registry vLLM's own metrics are in."""
        return get_prometheus_registry()
