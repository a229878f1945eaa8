"""Builds off the engine loop: reading and packing an adapter takes milliseconds that a running batch has not
got.

One background thread builds, one adapter after another, and sleeps every other half millisecond, so that the
engine's thread gets the interpreter back at once. Whoever asked comes again until it is told "prepared".
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


def at_leisure(items: Iterable[T]) -> Iterator[T]:
    """The items, with pauses in which other threads get the interpreter. For a background build's loops."""
    began = time.perf_counter()
    for item in items:
        if time.perf_counter() - began > WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
        yield item


class Preparing(Generic[Build]):
    """Builds under way and done, until they are taken. Called from the engine loop only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._builds: dict[Hashable, Future[Build]] = {}

    def begin(self, key: Hashable, build: Callable[[Yielding], Build]) -> None:
        """Start to build, unless it is under way or done. `build` runs its loops through what it gets."""
        if key not in self._builds:
            self._builds[key] = self._thread.submit(build, at_leisure)

    def state(self, key: Hashable) -> tuple[State, str]:
        """How far a build that was begun is; with the reason where it failed."""
        build = self._builds[key]
        if not build.done():
            return "preparing", ""
        error = build.exception()
        return ("prepared", "") if error is None else ("failed", f"{type(error).__name__}: {error}")

    def take(self, key: Hashable) -> Build | None:
        """A finished build, forgotten here; None where there is none. Raises what the build raised."""
        build = self._builds.get(key)
        if build is None or not build.done():
            return None
        del self._builds[key]
        return build.result()

    def forget(self, key: Hashable) -> None:
        """Drop a build in whatever state it is."""
        build = self._builds.pop(key, None)
        if build is not None:
            build.cancel()

    def clear(self) -> None:
        """Drop all builds."""
        for key in list(self._builds):
            self.forget(key)
