"""Occasional refusals are sent at once. When there are many they wait, and are sent one after another."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from lora_compose.server.http.pace import REFUSALS_PER_SECOND
from lora_compose.server.tenants.refusal_delay import IMMEDIATE_PER_MINUTE, RefusalDelay


async def seconds_of(awaited: Awaitable[object]) -> float:
    began = perf_counter()
    await awaited
    return perf_counter() - began


async def test_a_flood_waits_and_another_key_does_not() -> None:
    delay = RefusalDelay(seconds=0.2)
    for _ in range(IMMEDIATE_PER_MINUTE):
        await delay.wait("key-1")
    assert await seconds_of(delay.wait("key-1")) >= 0.2
    task, other = asyncio.create_task(delay.wait("key-1")), asyncio.create_task(delay.wait("key-2"))
    await asyncio.sleep(0.01)
    assert (other.done(), task.done()) == (True, False)
    await task


async def test_refusals_that_came_together_are_sent_one_after_another() -> None:
    """A hundred at one time would be one long turn of the event loop."""
    delay, sent = RefusalDelay(seconds=0.1), list[float]()

    async def refuse() -> None:
        await delay.wait(None)
        sent.append(perf_counter())

    began = perf_counter()
    await asyncio.gather(*(refuse() for _ in range(IMMEDIATE_PER_MINUTE + 20)))
    later = sent[IMMEDIATE_PER_MINUTE:]
    for number, when in enumerate(later):
        assert when - began >= 0.1 + number / REFUSALS_PER_SECOND - 0.01
