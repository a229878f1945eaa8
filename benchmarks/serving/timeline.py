"""Measures what requests notice while adapters are registered, a stack is fused, and the base is restored.

An open loop requests stacks of two adapters. At fixed times, one of these operations is sent to the server.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import httpx

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.counters import counters
from lora_compose.benchmarks.serving.load import Sending, Words, body, send_pass
from lora_compose.benchmarks.serving.results.document import Event, Sample, Timeline
from lora_compose.benchmarks.serving.systems import SystemsUnderTest, write_random
from lora_compose.server.client.http import Client

SAMPLE_SECONDS = 0.25
NEW = "arrives-late"
RATE_SHARE = 0.5


async def timeline(
    client: httpx.AsyncClient, systems: SystemsUnderTest, seconds: float, rate: float, words: Words, seed: int
) -> tuple[Timeline, list[str]]:
    """Run the timeline.

    Returns it, and a caveat if the server refused an operation. Later ones are left out.
    """
    draw = random.Random(f"{seed}/timeline")
    ids = [adapter.id for adapter in systems.adapters]
    sendings: list[Sending] = []
    due = draw.expovariate(rate)
    while due < seconds:
        pair = "+".join(draw.sample(ids, min(2, len(ids))))
        prompt = draw.choices(words.vocabulary, k=16)
        request = body(pair, prompt, 16, f"timeline-{seed}-{len(sendings)}")
        sendings.append(Sending(request, due=due))
        due += draw.expovariate(rate)
    began = perf_counter()
    events: list[Event] = []
    operating = asyncio.create_task(_operate(systems, seconds, began, events))
    samples: list[Sample] = []
    sampling = asyncio.create_task(_sample(client, began, samples))
    try:
        rows, _ = await send_pass(client, sendings, None)
        refused = await operating
    finally:
        operating.cancel()
        sampling.cancel()
        await asyncio.gather(operating, sampling, return_exceptions=True)
    written = [row.for_file() for row in rows]
    return Timeline(seconds=seconds, rate=rate, rows=written, events=events, samples=samples), refused


async def _operate(systems: SystemsUnderTest, seconds: float, began: float, events: list[Event]) -> list[str]:
    """Register an adapter, request its first answer, fuse and restore. Returns a caveat if one is refused."""
    ids = [adapter.id for adapter in systems.adapters]
    stack = "+".join(ids[:2])
    url, key = systems.urls["lora-compose"], systems.api_key

    def register() -> None:
        directory = Path(str(systems.root)) / NEW
        write_random(Path(str(systems.root)) / ids[0].partition("@")[0], 8, directory, seed=1)
        with Client(url, key) as client:
            client.register({"name": NEW, "path": str(directory)})

    def first_answer() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            request = {"model": NEW, "prompt": "a", "max_tokens": 1}
            client.post("/v1/completions", json=request).raise_for_status()

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
        try:
            await asyncio.to_thread(act)
        except (LoraComposeError, httpx.HTTPError) as error:
            return [f"The timeline ends early. The server refused to {what}: {error}"]
        seconds_taken = perf_counter() - began - start
        events.append(Event(t=round(start, 6), seconds=round(seconds_taken, 6), what=what))
    return []


async def _sample(client: httpx.AsyncClient, began: float, samples: list[Sample]) -> None:
    while True:
        values = await counters(client)
        samples.append(Sample(t=round(perf_counter() - began, 6), counters=values))
        await asyncio.sleep(SAMPLE_SECONDS)
