"""Occasional refusals are sent at once. When there are many they wait, and at most MAX_WAITING of them."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from lora_compose.server.tenants.refusal_delay import IMMEDIATE_PER_MINUTE, MAX_WAITING, RefusalDelay


async def seconds_of(awaited: Awaitable[object]) -> float:
    began = perf_counter()
    await awaited
    return perf_counter() - began


async def test_a_flood_waits_and_another_key_does_not() -> None:
    delay = RefusalDelay(seconds=0.2)
    for _ in range(IMMEDIATE_PER_MINUTE):
        await delay.wait("key-1")
    assert await seconds_of(delay.wait("key-1")) >= 0.2
    before = delay.waiting
    task = asyncio.create_task(delay.wait("key-1"))
    await asyncio.sleep(0)
    assert (before, delay.waiting) == (0, 1)
    other = asyncio.create_task(delay.wait("key-2"))
    await asyncio.sleep(0)
    assert (other.done(), task.done()) == (True, False)
    await task


async def test_no_more_wait_than_there_is_room_for() -> None:
    delay = RefusalDelay(seconds=30)
    tasks = [asyncio.create_task(delay.wait(None)) for _ in range(IMMEDIATE_PER_MINUTE + MAX_WAITING + 50)]
    await asyncio.sleep(0)
    assert delay.waiting == MAX_WAITING
    assert sum(task.done() for task in tasks) == IMMEDIATE_PER_MINUTE + 50
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert delay.waiting == 0
