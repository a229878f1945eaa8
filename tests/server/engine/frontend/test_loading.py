"""Work in the loading thread: results, exceptions, and an end while it runs."""

import asyncio
import subprocess
import sys
import time

import pytest

from lora_compose.server.engine.frontend.loading import in_loading_thread, is_loading


def end_with(error: BaseException) -> None:
    raise error


async def test_the_result_comes_back_while_the_loop_runs() -> None:
    ticks = 0
    work = asyncio.create_task(in_loading_thread(lambda: time.sleep(0.2) or 7))  # type: ignore[func-returns-value]
    while not work.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (await work, ticks > 5, is_loading()) == (7, True, False)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2)])
async def test_what_it_raises_is_raised_here(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        await in_loading_thread(lambda: end_with(error))
    assert raised.value is error


PROGRAM = """
import asyncio, subprocess, sys, time
from lora_compose.server.engine.frontend.loading import in_loading_thread, is_loading

async def main():
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    codes = []
    work = asyncio.create_task(in_loading_thread(lambda: codes.append(subprocess.run(command).returncode)))
    await asyncio.sleep(0.3)
    work.cancel()
    began = time.monotonic()
    try:
        await work
    except asyncio.CancelledError:
        print(codes, is_loading(), time.monotonic() - began < 30)

asyncio.run(main())
"""


def test_cancelling_kills_the_process_that_it_waits_for() -> None:
    """In another process: all children are killed, and the shared servers are children of this one."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n")[0] == "[-9] False True"
