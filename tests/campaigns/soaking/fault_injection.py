"""The faults of the soak. They are injected into the machine and the server while the traffic goes on."""

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil
import torch
from safetensors.torch import load_file, save_file

from lora_compose.benchmarks.client import PATH
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.soaking.registry_changes import RegistryChanger
from tests.running_server import RunningServer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BURST = 20
WAIT_SECONDS = 120.0
GOOD = ADAPTERS_DIR / "roll"
BODIES: tuple[bytes, ...] = (
    b"",
    b"[]",
    b"{" * 10_000,
    b'{"model": "roll", "adapters": []}',
    b'{"model": "unknown", "prompt": "a"}',
    b'{"model": "roll:NaN", "prompt": "a"}',
    b'{"model": "roll", "prompt": "a", "max_tokens": -1}',
    b'{"model": "roll", "prompt": [99999999]}',
    b"\xff\xfe",
)


@dataclass
class Fault:
    """A fault that was injected. It ended when the server was ready again.

    If `stops_engine`, requests to the engine may fail meanwhile.
    """

    name: str
    began: float
    stops_engine: bool
    ended: float = float("inf")
    outcomes: dict[str, int] = field(default_factory=dict)


@dataclass
class FaultInjector:
    """Injects faults, one after another."""

    server: RunningServer
    data_dir: Path
    http: httpx.AsyncClient
    changer: RegistryChanger
    draw: random.Random
    faults: list[Fault] = field(default_factory=list)

    async def run(self, pause: float) -> None:
        """Inject every fault in turn until cancelled. Each round has a new order."""
        while True:
            for name in self.draw.sample(sorted(FAULTS), len(FAULTS)):
                await asyncio.sleep(pause)
                await self.inject(name)

    async def inject(self, name: str) -> None:
        """Inject one fault, and wait until the server is ready again."""
        fault = Fault(name, monotonic(), name in ENGINE_FAULTS)
        self.faults.append(fault)
        fault.outcomes = dict(await FAULTS[name](self))
        fault.ended = monotonic()

    async def ready(self) -> None:
        """Wait until the server is ready. Raises TimeoutError."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await self._is_ready():
                await asyncio.sleep(0.1)

    async def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).is_success
        return False


def engine_of(server: RunningServer) -> psutil.Process | None:
    """The engine process. None if no engine is running."""
    with suppress(psutil.NoSuchProcess, ValueError):
        return server.engine()
    return None


async def _kill(injector: FaultInjector) -> Mapping[str, int]:
    engine = engine_of(injector.server)
    if engine is not None:
        engine.kill()
    await asyncio.sleep(1)
    await injector.ready()
    return {}


async def _stop(injector: FaultInjector) -> Mapping[str, int]:
    engine = engine_of(injector.server)
    if engine is not None:
        os.kill(engine.pid, signal.SIGSTOP)
        await asyncio.sleep(injector.draw.uniform(2, 5))
        os.kill(engine.pid, signal.SIGCONT)
    await injector.ready()
    return {}


async def _bad_bodies(injector: FaultInjector) -> Mapping[str, int]:
    outcomes: dict[str, int] = {}
    for _ in range(BURST):
        body = injector.draw.choice(BODIES)
        with suppress(httpx.HTTPError):
            reply = await injector.http.post(PATH, content=body, headers={"content-type": "application/json"})
            outcomes[str(reply.status_code)] = outcomes.get(str(reply.status_code), 0) + 1
    return outcomes


async def _bad_adapters(injector: FaultInjector) -> Mapping[str, int]:
    outcomes: dict[str, int] = {}
    config, weights = (GOOD / CONFIG).read_bytes(), (GOOD / WEIGHTS).read_bytes()
    for number in range(BURST):
        at = injector.draw.randrange(len(weights) // 2)
        broken = (weights[:at], weights[: at % 400] + b"\xff" * 8 + weights[at % 400 + 8 :])[number % 2]
        files = {CONFIG: (CONFIG, config), WEIGHTS: (WEIGHTS, broken)}
        reply = await injector.http.post("/v1/adapters", data={"name": "broken"}, files=files)
        outcomes[str(reply.status_code)] = outcomes.get(str(reply.status_code), 0) + 1
        if reply.is_success:  # the changed bytes have no meaning, so the adapter is valid
            await injector.http.delete("/v1/adapters/broken")
    return outcomes


async def _disconnects(injector: FaultInjector) -> Mapping[str, int]:
    body = {"model": "roll+upper", "prompt": "roll table", "max_tokens": 500, "ignore_eos": True}

    async def leave(after: float) -> None:
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(after):
                await injector.http.post(PATH, json=body)

    await asyncio.gather(*(leave(injector.draw.uniform(0, 1)) for _ in range(BURST)))
    return {"left": BURST}


async def _lose_file(injector: FaultInjector) -> Mapping[str, int]:
    """Delete the weights of an adapter that the engine does not hold. A request for it is then refused."""
    async with injector.changer.lock:
        with tempfile.TemporaryDirectory() as made:
            await asyncio.to_thread(_other_weights, Path(made), injector.draw.randrange(1 << 30))
            files = {name: (name, (Path(made) / name).read_bytes()) for name in (CONFIG, WEIGHTS)}
            reply = await injector.http.post("/v1/adapters", data={"name": "doomed"}, files=files)
        digest = reply.raise_for_status().json()["digest"]
        try:
            return await _without_file(injector, digest)
        finally:
            await injector.http.delete("/v1/adapters/doomed")


async def _without_file(injector: FaultInjector, digest: str) -> dict[str, int]:
    for _ in range(60):
        host = (await injector.http.get("/v1/residency")).json()["host"]["adapters"]
        if not any(adapter["id"].startswith("doomed@") for adapter in host):
            break
        await asyncio.sleep(0.5)
    else:
        return {"stayed in memory": 1}
    (found,) = (path for path in (injector.data_dir / "store").rglob(WEIGHTS) if digest[-32:] in str(path))
    found.parent.chmod(0o755)
    found.unlink()
    request: dict[str, Any] = {"model": "doomed", "prompt": "roll table", "max_tokens": 4}
    reply = await injector.http.post(PATH, json=request)
    return {f"asked: {reply.status_code}": 1}


def _other_weights(directory: Path, seed: int) -> None:
    """Write the weights of `roll` with a little noise, so that no other adapter has the same files."""
    made = torch.Generator().manual_seed(seed)
    tensors = load_file(GOOD / WEIGHTS)
    noisy = {name: t + 1e-3 * torch.randn(t.shape, generator=made) for name, t in tensors.items()}
    save_file(noisy, directory / WEIGHTS)
    (directory / CONFIG).write_bytes((GOOD / CONFIG).read_bytes())


FAULTS: dict[str, Callable[[FaultInjector], Awaitable[Mapping[str, int]]]] = {
    "engine killed": _kill,
    "engine stopped": _stop,
    "bad bodies": _bad_bodies,
    "bad adapters": _bad_adapters,
    "disconnects": _disconnects,
    "file lost": _lose_file,
}
ENGINE_FAULTS = frozenset({"engine killed", "engine stopped"})
