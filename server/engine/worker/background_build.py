"""Builds adapters in a background thread, because reading and packing one would delay a running batch.

One thread builds one adapter after another. After every half millisecond of work it sleeps for half a
millisecond, so that the engine's thread gets the interpreter soon. The caller polls until the state is
"prepared".
"""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Literal, TypeVar

from lora_compose.server.engine.worker.stacking import Yielding

T = TypeVar("T")
Build = TypeVar("Build")
State = Literal["preparing", "prepared", "failed"]

WORK_SECONDS = 0.0005
PAUSE_SECONDS = 0.0005


def yielding(items: Iterable[T]) -> Iterator[T]:
    """The items, with pauses in which other threads get the interpreter.

    For the loops of a background build."""
    started = time.perf_counter()
    for item in items:
        if time.perf_counter() - started > WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            started = time.perf_counter()
        yield item


class BackgroundBuilds(Generic[Build]):
    """Builds that run or are finished, until `take` removes them. Called from the engine loop only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._builds: dict[Hashable, Future[Build]] = {}

    def start(self, key: Hashable, build: Callable[[Yielding], Build]) -> None:
        """Start a build, unless it runs or is finished.

        `build` gets the `Yielding` that its loops must use."""
        if key not in self._builds:
            self._builds[key] = self._thread.submit(build, yielding)

    def state(self, key: Hashable) -> tuple[State, str]:
        """The state of a build that was started, and the reason if it failed."""
        build = self._builds[key]
        if not build.done():
            return "preparing", ""
        error = build.exception()
        return ("prepared", "") if error is None else ("failed", f"{type(error).__name__}: {error}")

    def take(self, key: Hashable) -> Build | None:
        """Remove and return a finished build; None if it is not finished.

        Raises the exception of the build."""
        build = self._builds.get(key)
        if build is None or not build.done():
            return None
        del self._builds[key]
        return build.result()

    def discard(self, key: Hashable) -> None:
        """Drop a build in any state."""
        build = self._builds.pop(key, None)
        if build is not None:
            build.cancel()

    def clear(self) -> None:
        """Drop all builds."""
        for key in list(self._builds):
            self.discard(key)
