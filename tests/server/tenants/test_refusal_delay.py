"""Who is refused now and then is told at once; a flood waits, and never more of it than there is room for."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from lora_compose.server.tenants.refusal_delay import AT_ONCE_A_MINUTE, MOST_WAITING, RefusalDelay


async def seconds_of(awaited: Awaitable[object]) -> float:
    began = perf_counter()
    await awaited
    return perf_counter() - began


async def test_a_flood_waits_and_another_key_does_not() -> None:
    flood = RefusalDelay(seconds=0.2)
    for _ in range(AT_ONCE_A_MINUTE):
        await flood.slow_down("key-1")
    assert await seconds_of(flood.slow_down("key-1")) >= 0.2
    before = flood.waiting
    task = asyncio.create_task(flood.slow_down("key-1"))
    await asyncio.sleep(0)
    assert (before, flood.waiting) == (0, 1)
    other = asyncio.create_task(flood.slow_down("key-2"))
    await asyncio.sleep(0)
    assert (other.done(), task.done()) == (True, False)
    await task


async def test_no_more_wait_than_there_is_room_for() -> None:
    flood = RefusalDelay(seconds=30)
    tasks = [asyncio.create_task(flood.slow_down(None)) for _ in range(AT_ONCE_A_MINUTE + MOST_WAITING + 50)]
    await asyncio.sleep(0)
    assert flood.waiting == MOST_WAITING
    assert sum(task.done() for task in tasks) == AT_ONCE_A_MINUTE + 50
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert flood.waiting == 0
