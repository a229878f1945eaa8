"""Schedules requests onto adapters: waits for cache space and a slot, first come first served with bounded
overtaking.

A request holds its cache entries (see `cache`) and a slot while it runs. If one is missing, the request waits
in a queue. A later request may overtake it if that does not delay it. After `MAX_OVERTAKE_SECONDS` in the
queue it can no longer be overtaken, so it waits at most that long and then for the requests before it.

Everything runs on the event loop. State changes only between two awaits, and a request releases what it holds
without an await.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from lora_compose.adapters.errors import Code, Unservable
from lora_compose.server.compositions.servable import Servable
from lora_compose.server.engine.spec import Component
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.cache import (
    AdapterCache,
    BuildSpec,
    CacheEntry,
    PreparingEngine,
    Sweep,
    build_specs_of,
)

logger = logging.getLogger(__name__)

MAX_OVERTAKE_SECONDS = 0.5
MayBuild = Callable[[int], None]


class LoraEngine(PreparingEngine, Protocol):
    """What the scheduler needs of the engine."""

    @property
    def runtime_weights(self) -> bool: ...

    def expose(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None: ...

    def hide(self, name: str) -> None: ...


@dataclass(eq=False)
class Slot:
    """A set of cache entries that vLLM serves under one LoRA id. It takes a slot while it has requests."""

    key: tuple[str, ...]
    lora_int_id: int
    servables: "Counter[Servable]" = field(default_factory=Counter)
    """Requests in flight, by composition. vLLM's app answers to the names of these compositions only."""


@dataclass(eq=False)
class Lease:
    """What an admitted request holds. It releases it once."""

    servable: Servable
    entries: tuple[CacheEntry, ...]
    slot: Slot | None


@dataclass(eq=False)
class Waiter:
    """A request in the queue. `since` is a time on the monotonic clock."""

    servable: Servable
    specs: tuple[BuildSpec, ...]
    needs_slot: bool
    since: float
    admitted: "asyncio.Future[Lease]"

    @property
    def key(self) -> tuple[str, ...]:
        """Requests with the same builds share a slot."""
        return tuple(sorted(spec.key for spec in self.specs))


class ResidencyScheduler:
    """Owner of the engine's adapters: `capacity` builds in host memory, `slots` sets of them in use."""

    def __init__(self, engine: LoraEngine, capacity: int, slots: int, metrics: Metrics, sweep: Sweep) -> None:
        self.slots = slots
        metrics.slots.set(slots)
        metrics.capacity.set(capacity)
        self.cache = AdapterCache(engine, capacity, metrics, self._admit)
        self._engine = engine
        self._metrics = metrics
        self._sweep = sweep
        self._used_slots: dict[tuple[str, ...], Slot] = {}
        self._queue: list[Waiter] = []
        self._using: Counter[str] = Counter()
        self._left: set[str] = set()
        """Digests of removed adapters whose files stay because they are in use."""
        self._sweeps: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(
        self, servable: Servable, *, needs_slot: bool = True, may_build: MayBuild | None = None
    ) -> AsyncIterator[None]:
        """Prepare the composition and, with `needs_slot`, serve it while the context is open.

        `may_build` is called with the number of missing builds, and raises if the caller may not build them.
        Waits in the queue for space. If a build fails, every request that waits for it gets its exception.
        Raises Unservable if the composition can never fit.
        """
        specs = self._specs_of(servable)
        missing = sum(spec.key not in self.cache for spec in specs)
        if missing and may_build is not None:
            may_build(missing)
        lease = await self._wait_admitted(servable, specs, needs_slot)
        try:
            for entry in lease.entries:
                if not entry.is_ready:
                    await asyncio.shield(entry.prepared)
            yield
        finally:
            self._release(lease)

    @asynccontextmanager
    async def reserve(self, servable: Servable) -> AsyncIterator[None]:
        """Like `hold` without a slot, for an unlimited time.

        Requests that could only run after this ends are refused, not queued."""
        async with self.hold(servable, needs_slot=False):
            keys = [spec.key for spec in self._specs_of(servable)]
            self.cache.reserve(keys)
            self._admit()
            try:
                yield
            finally:
                self.cache.unreserve(keys)

    async def _wait_admitted(
        self, servable: Servable, specs: tuple[BuildSpec, ...], needs_slot: bool
    ) -> Lease:
        admitted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = Waiter(servable, specs, needs_slot, time.monotonic(), admitted)
        self._queue.append(waiter)
        self._admit()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.cancelled():
                self._queue.remove(waiter)
                self._admit()
            elif admitted.exception() is None:
                self._release(admitted.result())
            raise
        finally:
            self._metrics.queue_seconds.observe(time.monotonic() - waiter.since)

    def _specs_of(self, servable: Servable) -> tuple[BuildSpec, ...]:
        return build_specs_of(servable, runtime_weights=self._engine.runtime_weights)

    def _admit(self) -> None:
        """Admit the waiters that fit, in order. Stops at one that can no longer be overtaken."""
        now, keys_ahead = time.monotonic(), set[str]()
        for waiter in list(self._queue):
            if waiter.admitted.cancelled():
                continue
            try:
                lease = self._try_admit(waiter, keys_ahead)
            except Unservable as error:
                self._queue.remove(waiter)
                waiter.admitted.set_exception(error)
                continue
            if lease is not None:
                self._queue.remove(waiter)
                waiter.admitted.set_result(lease)
            elif now - waiter.since >= MAX_OVERTAKE_SECONDS:
                break
            else:
                keys_ahead.update(waiter.key)
        self._metrics.queued.set(len(self._queue))

    def _try_admit(self, waiter: Waiter, keys_ahead: set[str]) -> Lease | None:
        """All of its entries and its slot, or None.

        `keys_ahead` are the builds of the waiters before it, which are not evicted for it."""
        self._check_fits(waiter)
        if any(self.cache.has_failed(spec.key) for spec in waiter.specs):
            return None
        missing = [spec for spec in waiter.specs if spec.key not in self.cache]
        if not self.cache.try_free(len(missing), {*waiter.key, *keys_ahead}):
            return None
        if waiter.needs_slot and waiter.key not in self._used_slots and len(self._used_slots) >= self.slots:
            for spec in missing:  # so that they are prepared when a slot becomes free
                self.cache.start_build(spec)
            return None
        (self._metrics.misses if missing else self._metrics.hits).inc()
        entries = tuple(self.cache.acquire(spec) for spec in waiter.specs)
        return Lease(
            waiter.servable, entries, self._take_slot(waiter, entries) if waiter.needs_slot else None
        )

    def _check_fits(self, waiter: Waiter) -> None:
        available = self.cache.capacity_for(waiter.key)
        if len(waiter.specs) > available:
            raise Unservable(
                Code.TOO_MANY_MEMBERS,
                f"{waiter.servable.name} needs {len(waiter.specs)} places in host memory, but this server "
                f"has {available} that no pinned or fused adapter holds (--max-cpu-loras).",
                "adapters",
            )

    def _take_slot(self, waiter: Waiter, entries: tuple[CacheEntry, ...]) -> Slot:
        slot = self._used_slots.get(waiter.key)
        if slot is None:
            lora_int_id = entries[0].lora_int_id if len(entries) == 1 else self.cache.new_id()
            slot = self._used_slots[waiter.key] = Slot(waiter.key, lora_int_id)
        servable = waiter.servable
        if not slot.servables[servable]:
            self._engine.expose(servable.name, slot.lora_int_id, servable.components)
        slot.servables[servable] += 1
        self._metrics.active.set(len(self._used_slots))
        return slot

    def _release(self, lease: Lease) -> None:
        if lease.slot is not None:
            self._free_slot(lease.slot, lease.servable)
        for entry in lease.entries:
            self.cache.release(entry)
        if any(entry.is_removed for entry in lease.entries):
            self._start_sweep()
        self._admit()

    def _start_sweep(self) -> None:
        task = asyncio.create_task(self._sweep_files())
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    def _free_slot(self, slot: Slot, servable: Servable) -> None:
        slot.servables[servable] -= 1
        if not slot.servables[servable]:
            del slot.servables[servable]
            self._engine.hide(servable.name)
        if not slot.servables:
            del self._used_slots[slot.key]
        self._metrics.active.set(len(self._used_slots))

    def wanted(self) -> list[Servable]:
        """The compositions of the requests in flight and in the queue."""
        in_flight = (servable for slot in self._used_slots.values() for servable in slot.servables)
        return [*in_flight, *(waiter.servable for waiter in self._queue)]

    def used_directories(self) -> frozenset[str]:
        """The directories of builds that a request uses or waits for, or that are pinned or fused."""
        used = (entry for entry in self.cache.entries() if not self.cache.is_idle(entry))
        return frozenset(component.directory for entry in used for component in entry.spec.components)

    def pinned_ids(self) -> set[str]:
        """The pinned versions, as `name@number`."""
        return {version for versions in self.cache.pins() for version in versions}

    def prefetch(self, servable: Servable) -> None:
        """Start missing builds if that evicts nothing and no request is in the queue."""
        for spec in self._specs_of(servable):
            is_full = len(self.cache.entries()) >= self.cache.capacity
            if spec.key not in self.cache and not self._queue and not is_full:
                self.cache.start_build(spec)

    async def pin(self, servable: Servable) -> None:
        """Keep one adapter in host memory until it is unpinned. Raises Conflict("pins_exhausted")."""
        (spec,) = self._specs_of(servable)
        self.cache.pin(spec)
        async with self.hold(servable, needs_slot=False):
            pass

    def unpin(self, versions: frozenset[str]) -> None:
        """Allow these versions to be evicted again."""
        self.cache.unpin(versions)
        self._admit()

    @contextmanager
    def using(self, digests: frozenset[str]) -> Iterator[None]:
        """Keep the files of these adapters while the context is open, even if they are removed meanwhile.

        A request needs it from its resolution to `hold`, because a merge may have to be built first."""
        self._using.update(digests)
        try:
            yield
        finally:
            self._using.subtract(digests)
            unused = {digest for digest in self._left & digests if not self._using[digest]}
            self._using += Counter()  # drops what is at zero
            if unused:
                self._left -= unused
                self._start_sweep()

    async def remove(self, versions: frozenset[str], digests: frozenset[str] = frozenset()) -> None:
        """These versions, with these digests, were removed. Requests in flight finish; idle builds are
        dropped now, and files as soon as nothing needs them."""
        self._left |= digests & self._using.keys()
        self.cache.remove(versions)
        await self._sweep_files()
        self._admit()

    async def _sweep_files(self) -> None:
        await self.cache.wait_evicted()
        waiting = (waiter.servable.digests for waiter in self._queue)
        await self._sweep(frozenset(self.cache.digests()).union(self._using, *waiting))

    def active(self) -> list[dict[str, int]]:
        """For each slot in use, its requests in flight by canonical name."""
        return [
            {servable.name: requests for servable, requests in slot.servables.items()}
            for slot in self._used_slots.values()
        ]

    @property
    def queued(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def check_integrity(self) -> None:
        """Assert what must hold between any two awaits: sizes are within capacity, and counts are right."""
        self.cache.check_integrity()
        used = self._used_slots.values()
        assert len(used) <= self.slots
        assert all(slot.servables and min(slot.servables.values()) > 0 for slot in used)
        for entry in self.cache.entries():
            requests = sum(slot.servables.total() for slot in used if entry.spec.key in slot.key)
            assert entry.users >= requests, (entry.spec.label, entry.users, requests)
        assert all(not waiter.admitted.done() or waiter.admitted.cancelled() for waiter in self._queue)
