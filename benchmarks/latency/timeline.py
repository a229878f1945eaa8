"""What those who are served notice while adapters arrive, a stack is fused, and the base comes back.

Stacks of two are asked for in an open loop; at fixed moments something happens to the server.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.counters import counters
from benchmarks.latency.combined import write_random
from benchmarks.latency.measuring import written
from benchmarks.latency.prompts import Words
from benchmarks.latency.sender import Sending, send_pass
from benchmarks.latency.targets import Targets
from benchmarks.latency.workload import body
from server.client.http import Client

SAMPLE_SECONDS = 0.25
NEW = "arrives-late"
RATE_SHARE = 0.5
Event = dict[str, Any]


async def timeline(
    client: httpx.AsyncClient, targets: Targets, seconds: float, rate: float, words: Words, seed: int
) -> dict[str, Any]:
    """Rows, events and samples of the server's counters, in seconds since it began."""
    draw = random.Random(f"{seed}/timeline")
    ids = [one["id"] for one in targets.adapters]
    sendings: list[Sending] = []
    due = draw.expovariate(rate)
    while due < seconds:
        pair = "+".join(draw.sample(ids, min(2, len(ids))))
        prompt = draw.choices(words.vocabulary, k=16)
        sendings.append(Sending(0, 0, due, body(pair, prompt, 16, f"timeline-{seed}-{len(sendings)}")))
        due += draw.expovariate(rate)
    began = perf_counter()
    events: list[Event] = []
    happening = asyncio.create_task(_happen(targets, seconds, began, events))
    samples: list[dict[str, Any]] = []
    sampling = asyncio.create_task(_sample(client, began, samples))
    try:
        rows, _ = await send_pass(client, sendings, None)
        await happening
    finally:
        happening.cancel()
        sampling.cancel()
        await asyncio.gather(happening, sampling, return_exceptions=True)
    return {
        "seconds": seconds,
        "rate": rate,
        "rows": [written(row) for row in rows],
        "events": events,
        "samples": samples,
    }


async def _happen(targets: Targets, seconds: float, began: float, events: list[Event]) -> None:
    """A new adapter and its first answer, fuse, restore."""
    ids = [one["id"] for one in targets.adapters]
    stack = "+".join(ids[:2])
    url, key = targets.urls["lora-compose"], targets.api_key

    def register() -> None:
        directory = Path(str(targets.root)) / NEW
        write_random(Path(str(targets.root)) / ids[0].partition("@")[0], 8, directory, seed=1)
        with Client(url, key) as client:
            client.register({"name": NEW, "path": str(directory)})

    def first_answer() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            asked = {"model": NEW, "prompt": "a", "max_tokens": 1}
            client.post("/v1/completions", json=asked).raise_for_status()

    def fuse() -> None:
        with Client(url, key) as client:
            client.fuse(stack)

    def restore() -> None:
        with Client(url, key) as client:
            client.restore_base()

    def remove() -> None:
        with Client(url, key) as client:
            client.remove(NEW)

    steps: list[tuple[float, str, Callable[[], None]]] = [
        (0.2, f"register {NEW}", register),
        (0.25, f"first answer of {NEW}", first_answer),
        (0.45, f"fuse {stack}", fuse),
        (0.7, "restore the base", restore),
        (0.85, f"remove {NEW}", remove),
    ]
    for share, what, act in steps:
        await asyncio.sleep(max(0.0, began + share * seconds - perf_counter()))
        start = perf_counter() - began
        await asyncio.to_thread(act)
        events.append({
            "t": round(start, 6),
            "seconds": round(perf_counter() - began - start, 6),
            "what": what,
        })


async def _sample(client: httpx.AsyncClient, began: float, samples: list[dict[str, Any]]) -> None:
    while True:
        values = await counters(client)
        samples.append({"t": round(perf_counter() - began, 6), "counters": values})
        await asyncio.sleep(SAMPLE_SECONDS)
