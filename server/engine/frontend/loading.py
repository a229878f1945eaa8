"""Runs what blocks for a long time in a thread that a stop of the server need not wait for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psutil

GIVE_UP_SECONDS = 5.0
QUIET_SECONDS = 0.5
"""After this long without a process to kill, waiting for the thread has no use: it imports or downloads."""
POLL_SECONDS = 0.1
THREAD_NAME = "loading"

Result = TypeVar("Result")


async def in_loading_thread(work: Callable[[], Result]) -> Result:
    """The result of `work`, which runs in a daemon thread.

    If this is cancelled, the processes that this process has started are killed until `work` has ended, for
    at most GIVE_UP_SECONDS. vLLM's constructor ends when its engine process dies. `is_loading` says whether
    the thread still runs after that."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()
    thread = threading.Thread(target=_run, args=(work, loop, done), name=THREAD_NAME, daemon=True)
    thread.start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        done.add_done_callback(_read)
        await _give_up(thread)
        raise


def _run(work: Callable[[], Result], loop: asyncio.AbstractEventLoop, done: asyncio.Future[Result]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  SystemExit too: the task that waits gets it
        failure = RuntimeError(str(error)) if isinstance(error, StopIteration) else error
        _tell(loop, done, lambda: done.set_exception(failure))
    else:
        _tell(loop, done, lambda: done.set_result(result))


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Result], tell: Callable[[], None]) -> None:
    """Call `tell` on the loop, unless the loop has ended or the future is done."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(lambda: None if done.done() else tell())


def _read(done: asyncio.Future[Result]) -> None:
    """asyncio warns about exceptions that are never read."""
    if not done.cancelled():
        done.exception()


async def _give_up(thread: threading.Thread) -> None:
    clock = asyncio.get_running_loop().time
    began = last_kill = clock()
    while thread.is_alive() and clock() < min(began + GIVE_UP_SECONDS, last_kill + QUIET_SECONDS):
        if kill_children():
            last_kill = clock()
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(0)  # the thread's last word has been handed to the loop


def is_loading() -> bool:
    """Whether a thread of `in_loading_thread` still runs."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def kill_children() -> int:
    """Kill every process below this one, except Python's resource tracker, which then cleans up and ends.

    Returns how many were killed."""
    count = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            is_dead = child.status() == psutil.STATUS_ZOMBIE
            if not is_dead and not any("resource_tracker" in word for word in child.cmdline()):
                child.kill()
                count += 1
    return count
