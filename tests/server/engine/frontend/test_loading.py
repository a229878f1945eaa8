"""Work in the loading thread: results, exceptions, and an end while it runs."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess

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
import asyncio, multiprocessing, subprocess, sys, time
from lora_compose.server.engine.frontend.loading import in_loading_thread, is_loading

codes = []

def work():
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    process.join()
    codes.append(process.exitcode)

async def main():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    began.start()
    loading = asyncio.create_task(in_loading_thread(work))
    while len(multiprocessing.active_children()) < 2:
        await asyncio.sleep(0.05)
    loading.cancel()
    try:
        await loading
    except asyncio.CancelledError:
        print(codes, is_loading(), other.poll(), began.is_alive())
    other.kill()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_cancelling_kills_the_processes_that_the_work_has_started_and_no_others() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "[-9] False None True\n"


def abort_later() -> None:
    """As an engine process, which does not fail at once."""
    time.sleep(2)
    os.abort()


async def test_the_processes_that_the_work_has_started_are_told_also_if_they_have_failed() -> None:
    def start() -> None:
        process = multiprocessing.get_context("spawn").Process(target=abort_later)
        process.start()
        process.join()
        raise ValueError("no")

    processes: list[BaseProcess] = []
    with pytest.raises(ValueError, match="no"):
        await in_loading_thread(start, processes)
    assert [process.exitcode for process in processes] == [-6]
