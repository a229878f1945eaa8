"""The faults: what is done to the machine and to the server while everybody goes on."""

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
from tests.campaigns.soaking.changing import Changing
from tests.running_server import RunningServer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BURST = 20
PATIENCE = 120.0
GOOD = ADAPTERS_DIR / "roll"
BODIES: tuple[bytes, ...] = (
    b"",
    b"[]",
    b"{" * 10_000,
    b'{"model": "roll", "adapters": []}',
    b'{"model": "nobody", "prompt": "a"}',
    b'{"model": "roll:NaN", "prompt": "a"}',
    b'{"model": "roll", "prompt": "a", "max_tokens": -1}',
    b'{"model": "roll", "prompt": [99999999]}',
    b"\xff\xfe",
)


@dataclass
class Fault:
    """One that happened, from when to when things were as before; `hits` whoever asks the engine."""

    name: str
    began: float
    hits: bool
    ended: float = float("inf")
    told: dict[str, int] = field(default_factory=dict)


@dataclass
class Breaking:
    """One who breaks things."""

    server: RunningServer
    data_dir: Path
    http: httpx.AsyncClient
    changing: Changing
    draw: random.Random
    faults: list[Fault] = field(default_factory=list)

    async def run(self, pause: float) -> None:
        """Until cancelled: every fault in turn, in an order of its own each time."""
        while True:
            for name in self.draw.sample(sorted(FAULTS), len(FAULTS)):
                await asyncio.sleep(pause)
                await self.inflict(name)

    async def inflict(self, name: str) -> None:
        """One fault, until all is as before."""
        fault = Fault(name, monotonic(), name in HITS)
        self.faults.append(fault)
        fault.told = dict(await FAULTS[name](self))
        fault.ended = monotonic()

    async def ready(self) -> None:
        """Wait. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while not await self._is_ready():
                await asyncio.sleep(0.1)

    async def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).is_success
        return False


def engine_of(server: RunningServer) -> psutil.Process | None:
    """None while there is none."""
    with suppress(psutil.NoSuchProcess, ValueError):
        return server.engine()
    return None


async def _kill(breaking: Breaking) -> Mapping[str, int]:
    engine = engine_of(breaking.server)
    if engine is not None:
        engine.kill()
    await asyncio.sleep(1)
    await breaking.ready()
    return {}


async def _stop(breaking: Breaking) -> Mapping[str, int]:
    engine = engine_of(breaking.server)
    if engine is not None:
        os.kill(engine.pid, signal.SIGSTOP)
        await asyncio.sleep(breaking.draw.uniform(2, 5))
        os.kill(engine.pid, signal.SIGCONT)
    await breaking.ready()
    return {}


async def _bad_bodies(breaking: Breaking) -> Mapping[str, int]:
    told: dict[str, int] = {}
    for _ in range(BURST):
        body = breaking.draw.choice(BODIES)
        with suppress(httpx.HTTPError):
            reply = await breaking.http.post(PATH, content=body, headers={"content-type": "application/json"})
            told[str(reply.status_code)] = told.get(str(reply.status_code), 0) + 1
    return told


async def _bad_adapters(breaking: Breaking) -> Mapping[str, int]:
    told: dict[str, int] = {}
    config, weights = (GOOD / CONFIG).read_bytes(), (GOOD / WEIGHTS).read_bytes()
    for number in range(BURST):
        at = breaking.draw.randrange(len(weights) // 2)
        broken = (weights[:at], weights[: at % 400] + b"\xff" * 8 + weights[at % 400 + 8 :])[number % 2]
        files = {CONFIG: (CONFIG, config), WEIGHTS: (WEIGHTS, broken)}
        reply = await breaking.http.post("/v1/adapters", data={"name": "broken"}, files=files)
        told[str(reply.status_code)] = told.get(str(reply.status_code), 0) + 1
        if reply.is_success:  # the bytes that were changed say nothing: it is whole, and must go again
            await breaking.http.delete("/v1/adapters/broken")
    return told


async def _disconnects(breaking: Breaking) -> Mapping[str, int]:
    body = {"model": "roll+upper", "prompt": "roll table", "max_tokens": 500, "ignore_eos": True}

    async def leave(after: float) -> None:
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(after):
                await breaking.http.post(PATH, json=body)

    await asyncio.gather(*(leave(breaking.draw.uniform(0, 1)) for _ in range(BURST)))
    return {"left": BURST}


async def _lose_file(breaking: Breaking) -> Mapping[str, int]:
    """The weights of an adapter that the engine does not hold are deleted: asked for, it is a refusal."""
    async with breaking.changing.lock:
        with tempfile.TemporaryDirectory() as made:
            await asyncio.to_thread(_other_weights, Path(made), breaking.draw.randrange(1 << 30))
            files = {name: (name, (Path(made) / name).read_bytes()) for name in (CONFIG, WEIGHTS)}
            reply = await breaking.http.post("/v1/adapters", data={"name": "doomed"}, files=files)
        digest = reply.raise_for_status().json()["digest"]
        try:
            return await _without_file(breaking, digest)
        finally:
            await breaking.http.delete("/v1/adapters/doomed")


async def _without_file(breaking: Breaking, digest: str) -> dict[str, int]:
    for _ in range(60):
        host = (await breaking.http.get("/v1/residency")).json()["host"]["adapters"]
        if not any(one["id"].startswith("doomed@") for one in host):
            break
        await asyncio.sleep(0.5)
    else:
        return {"stayed in memory": 1}
    (found,) = (path for path in (breaking.data_dir / "store").rglob(WEIGHTS) if digest[-32:] in str(path))
    found.parent.chmod(0o755)
    found.unlink()
    asked: dict[str, Any] = {"model": "doomed", "prompt": "roll table", "max_tokens": 4}
    reply = await breaking.http.post(PATH, json=asked)
    return {f"asked: {reply.status_code}": 1}


def _other_weights(directory: Path, seed: int) -> None:
    """As `roll`'s, a little beside them, so that no other adapter has these files."""
    made = torch.Generator().manual_seed(seed)
    tensors = load_file(GOOD / WEIGHTS)
    noisy = {name: t + 1e-3 * torch.randn(t.shape, generator=made) for name, t in tensors.items()}
    save_file(noisy, directory / WEIGHTS)
    (directory / CONFIG).write_bytes((GOOD / CONFIG).read_bytes())


FAULTS: dict[str, Callable[[Breaking], Awaitable[Mapping[str, int]]]] = {
    "engine killed": _kill,
    "engine stopped": _stop,
    "bad bodies": _bad_bodies,
    "bad adapters": _bad_adapters,
    "disconnects": _disconnects,
    "file lost": _lose_file,
}
HITS = frozenset({"engine killed", "engine stopped"})
