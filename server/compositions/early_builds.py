"""Builds the merges of saved compositions before a request needs them, one at a time, and knows their state.

A merge is built when its composition is saved, when one of its members or aliases changes, and at the start
of the server. The registry holds what is saved and what is built, so nothing else survives a restart.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.errors import Code, LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.compositions.merges import MergeBuilder
from lora_compose.server.compositions.resolver import ResolvedComposition, Resolver
from lora_compose.server.compositions.servable import Servable
from lora_compose.server.metrics import Metrics

logger = logging.getLogger(__name__)

State = Literal["ready", "building", "waiting", "failed", "unbuilt"]
STATES: Final[tuple[State, ...]] = ("ready", "building", "waiting", "failed", "unbuilt")


@dataclass(frozen=True)
class BuildState:
    """Whether the adapter of a composition is built. A stack needs no build and is ready."""

    state: State
    code: str | None = None
    message: str | None = None
    """Why the build failed."""


class EarlyBuilds:
    """A task that runs beside the server; see `run`. `state` may be called from any thread."""

    def __init__(
        self,
        registry: Registry,
        resolver: Resolver,
        merges: MergeBuilder,
        metrics: Metrics,
        max_bytes: int,
    ) -> None:
        """`max_bytes` bounds the cached merges. When they are larger, nothing is built early."""
        self._registry = registry
        self._resolver = resolver
        self._merges = merges
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ended: dict[str, BuildState] = {}
        """The end of each early build. None is repeated: the build of a deleted merge ends."""
        self._unpaid: set[str] = set()
        """Names of compositions that were saved by a key without a build left in its quota."""
        self._queue: dict[str, ResolvedComposition] = {}
        self._saved: Collection[str] = ()
        """The keys of the saved merges."""
        self._is_full = False
        resolver.on_change(self._wake)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            self._loop.call_soon_threadsafe(self._changed.set)

    def leave_unbuilt(self, name: str) -> None:
        """Do not build the saved composition `name` early. A request builds it."""
        self._unpaid.add(name)

    def state(self, name: str | None, resolved: ResolvedComposition) -> BuildState:
        """The state of the composition that is saved as `name`. Reads the registry."""
        if resolved.composition.is_stack:
            return BuildState("ready")
        key = self._merges.key(resolved)
        return self._state(key, key in self._registry.merges.keys([key]), name not in self._unpaid)

    def _state(self, key: str, is_cached: bool, is_paid: bool) -> BuildState:
        if is_cached:
            return BuildState("ready")
        if self._merges.is_building(key):
            return BuildState("building")
        ended = self._ended.get(key)
        if ended is not None and ended.state == "failed":
            return ended
        waits = ended is None and is_paid and not self._is_full
        return BuildState("waiting" if waits else "unbuilt")

    async def run(self) -> None:
        """Build what is saved and not built, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._look()
            except LoraComposeError as error:
                logger.warning("saved compositions could not be read: %s", error.message)
            if self._queue and not self._is_full:
                key, resolved = next(iter(self._queue.items()))
                await self._build(key, resolved)
            else:
                await self._changed.wait()

    async def _look(self) -> None:
        """Find what is saved and not built, and count the states."""
        wanted = await run_in_threadpool(self._wanted)
        for key in self._ended.keys() - wanted.keys():
            del self._ended[key]  # saved again, it is built again
        self._saved = wanted.keys()
        cached = await run_in_threadpool(self._registry.merges.keys, self._saved)
        size = (await run_in_threadpool(self._registry.merges.size))[1]
        self._is_full = size >= self._max_bytes
        self._queue = {
            key: resolved
            for key, (resolved, is_paid) in wanted.items()
            if is_paid and key not in cached and key not in self._ended
        }
        counts = Counter(
            self._state(key, key in cached, is_paid).state for key, (_, is_paid) in wanted.items()
        )
        for state in STATES:
            self._metrics.saved_merges.labels(state).set(counts[state])

    def _wanted(self) -> dict[str, tuple[ResolvedComposition, bool]]:
        """The saved merges that can be served now, by key, and whether an early build is paid for."""
        wanted: dict[str, tuple[ResolvedComposition, bool]] = {}
        saved = self._registry.compositions()
        self._unpaid &= saved.keys()
        for name, composition in saved.items():
            if composition.is_stack:
                continue
            with suppress(LoraComposeError):  # of another base, or too large
                resolved = self._resolver.resolve(composition)
                key = self._merges.key(resolved)
                is_paid = name not in self._unpaid or (key in wanted and wanted[key][1])
                wanted[key] = (resolved, is_paid)
        return wanted

    async def _build(self, key: str, resolved: ResolvedComposition) -> None:
        """Build one merge. The build is abandoned when no saved composition needs it any more."""
        build = asyncio.create_task(self._merges.build(resolved))
        try:
            with self._merges.using(resolved):
                while not build.done() and key in self._saved:
                    await self._wait_for(build)
        finally:
            if not build.done():
                build.cancel()
                await asyncio.wait({build})
                self._merges.abandon(key)
        if not build.cancelled():
            self._ended[key] = _end_of(build, resolved.name)

    async def _wait_for(self, build: "asyncio.Task[Servable]") -> None:
        """Return when the build ends. Look again when the registry changes."""
        change = asyncio.create_task(self._changed.wait())
        await asyncio.wait({build, change}, return_when=asyncio.FIRST_COMPLETED)
        change.cancel()
        if not build.done():
            self._changed.clear()
            with suppress(LoraComposeError):
                await self._look()


def _end_of(build: "asyncio.Task[Servable]", name: str) -> BuildState:
    error = build.exception()
    if error is None:
        return BuildState("ready")
    logger.warning("the merge %s could not be built early: %s", name, error)
    if isinstance(error, LoraComposeError):
        return BuildState("failed", str(error.code), error.message)
    reason = "The merge could not be built. The server's log has the reason."
    if isinstance(error, BrokenExecutor):
        reason = "The process that built the merge was killed, perhaps because the memory was full."
    return BuildState("failed", Code.INTERNAL_ERROR.value, reason)
