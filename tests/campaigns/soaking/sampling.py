"""Samples the values that must not grow, every few seconds, and estimates their growth."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil

from tests.campaigns.soaking.fault_injection import engine_of
from tests.running_server import RunningServer

WARM_UP_SHARE = 0.2
BLOCK_SECONDS = 60.0
MIB = 1 << 20
BOUNDS = {
    "server_mib": 64.0,
    "engine_mib": 64.0,
    "server_fds": 6.0,
    "engine_fds": 6.0,
    "server_threads": 6.0,
    "series": 30.0,
    "tmp_files": 2.0,
    "rows": 6.0,
}
"""Growth in an hour that still counts as flat, even if its interval does not contain 0."""


@dataclass
class Sampler:
    """Reads memory, descriptors, threads, metric series, rows and temporary files at regular times."""

    server: RunningServer
    data_dir: Path
    http: httpx.AsyncClient
    began: float
    samples: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, pause: float) -> None:
        """Take samples until cancelled."""
        while True:
            self.samples.append({"at": round(monotonic() - self.began, 1), **await self.sample()})
            await asyncio.sleep(pause)

    async def sample(self) -> dict[str, float]:
        """Take one sample. Values of a server that does not answer are left out."""
        found = {**_process(self.server.process.pid, "server"), "tmp_files": float(self._left())}
        engine = engine_of(self.server)
        if engine is not None:
            found |= _process(engine.pid, "engine")
        try:
            text = (await self.http.get("/metrics")).raise_for_status().text
            rows = (await self.http.get("/v1/adapters")).raise_for_status().json()["data"]
        except httpx.HTTPError:
            return found
        return found | {
            "series": float(sum(not line.startswith("#") for line in text.splitlines())),
            "rows": float(len(rows)),
        }

    def _left(self) -> int:
        """The number of our temporary files."""
        places = [self.data_dir / "tmp", Path(tempfile.gettempdir())]
        return sum(1 for _ in places[0].rglob("*")) + sum(1 for _ in places[1].glob("lora-compose*"))


def _process(pid: int, name: str) -> dict[str, float]:
    try:
        process = psutil.Process(pid)
        return {
            f"{name}_pid": pid,
            f"{name}_mib": round(process.memory_info().rss / MIB, 2),
            f"{name}_fds": process.num_fds(),
            f"{name}_threads": process.num_threads(),
        }
    except psutil.NoSuchProcess:
        return {}


def growth(samples: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Growth in an hour, after the warm-up, with its 95 % interval. It is computed from the means of minutes.

    Growth of the engine is measured within the life of each engine process, because each process starts at
    another level. Returns None if there are too few samples.
    """
    import numpy as np
    from scipy.stats import t as student

    end = samples[-1]["at"]
    kept = [sample for sample in samples if name in sample and sample["at"] > WARM_UP_SHARE * end]
    life = f"{name.partition('_')[0]}_pid"
    blocks: dict[tuple[Any, int], list[tuple[float, float]]] = {}
    for sample in kept:
        block = (sample.get(life), int(sample["at"] // BLOCK_SECONDS))
        blocks.setdefault(block, []).append((sample["at"], sample[name]))
    lives: dict[Any, list[tuple[float, float]]] = {}
    for (which, _), points in blocks.items():
        lives.setdefault(which, []).append(tuple(np.mean(points, axis=0)))
    # The first minute of each process is its warm-up.
    long = [points[1:] if len(lives) > 1 else points for points in lives.values() if len(points) > 2]
    if sum(map(len, long)) < 3 + len(long):
        return None
    centred = np.concatenate([np.array(points) - np.mean(points, axis=0) for points in long])
    at, value = centred[:, 0], centred[:, 1]
    slope = float(at @ value / (at @ at))
    freedom = len(at) - len(long) - 1
    error = float(np.sqrt(np.sum((value - slope * at) ** 2) / freedom / (at @ at)))
    reach = float(student.ppf(0.975, freedom)) * error
    low, high = 3600 * (slope - reach), 3600 * (slope + reach)
    bound = BOUNDS[name]
    return {
        "an_hour": round(3600 * slope, 2),
        "low": round(low, 2),
        "high": round(high, 2),
        "bound": bound,
        "is_flat": low <= 0 or 3600 * slope <= bound,
    }
