"""Runs what blocks for a long time in a thread that a stop of the server need not wait for."""

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import TypeVar

import psutil

GIVE_UP_SECONDS = 5.0
QUIET_SECONDS = 0.5
"""After this long without a process to kill, waiting for the thread has no use: it imports or downloads."""
POLL_SECONDS = 0.1

Result = TypeVar("Result")


class LoadingThread(threading.Thread):
    """Runs `work`, and knows the processes that were started while it ran.

    vLLM starts its engine with `multiprocessing`. This project does not while a model loads."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="loading", daemon=True)
        self._others = set(multiprocessing.active_children())
        self._processes: list[BaseProcess] = []

    def processes(self) -> list[BaseProcess]:
        """Those that have been seen, also if they have ended since. Call it often."""
        found = multiprocessing.active_children()
        self._processes += [one for one in found if one not in self._others and one not in self._processes]
        return self._processes


async def in_loading_thread(work: Callable[[], Result], processes: list[BaseProcess] | None = None) -> Result:
    """The result of `work`, which runs in a daemon thread.

    If this is cancelled, the processes that `work` has started are killed until it has ended, for at most
    GIVE_UP_SECONDS. vLLM's constructor ends when its engine process dies. `is_loading` says whether the
    thread still runs after that. `processes` is filled with the processes that `work` has started."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()
    thread = LoadingThread(lambda: _run(work, loop, done))
    thread.start()
    try:
        while not done.done():
            await asyncio.wait({done}, timeout=POLL_SECONDS)
            thread.processes()
    except asyncio.CancelledError:
        done.add_done_callback(_read)
        await _give_up(thread)
        raise
    if processes is not None:
        processes += thread.processes()
    return done.result()


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


async def _give_up(thread: LoadingThread) -> None:
    clock = asyncio.get_running_loop().time
    began = last_kill = clock()
    while thread.is_alive() and clock() < min(began + GIVE_UP_SECONDS, last_kill + QUIET_SECONDS):
        if kill(thread.processes()):
            last_kill = clock()
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(0)  # the thread's last word has been handed to the loop


def is_loading() -> bool:
    """Whether a thread of `in_loading_thread` still runs."""
    return any(isinstance(thread, LoadingThread) for thread in threading.enumerate())


def kill(processes: Sequence[BaseProcess]) -> int:
    """Kill these processes and those below them. Returns how many were still there."""
    count = 0
    for process in processes:
        if process.exitcode is not None:
            continue  # its number may be another process's by now
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(process.pid)
            for one in (*top.children(recursive=True), top):
                count += _kill(one)
    return count


def _kill(process: psutil.Process) -> bool:
    """False if the process has ended, or is Python's resource tracker, which cleans up and ends by itself."""
    with suppress(psutil.NoSuchProcess):
        is_dead = process.status() == psutil.STATUS_ZOMBIE
        if not is_dead and not any("resource_tracker" in word for word in process.cmdline()):
            process.kill()
            return True
    return False


def memory_of(processes: Sequence[BaseProcess]) -> int:
    """The resident bytes of these processes and those below them."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(process.pid)
            total += sum(one.memory_info().rss for one in (top, *top.children(recursive=True)))
    return total
