"""An LRU cache of built adapters in the workers' host memory.

An entry is built once and shared by any number of compositions. It stays while a request uses it or a pin
names it, and after that until its place is needed.
"""

import asyncio
import itertools
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lora_compose.adapters.errors import Code, Conflict
from lora_compose.server.compositions.servable import Servable, StoredAdapter
from lora_compose.server.engine.spec import Component
from lora_compose.server.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSpec:
    """What to build, the cache key it is shared under, and the adapter versions it is made of."""

    key: str
    components: tuple[Component, ...]
    label: str
    versions: frozenset[str]
    digests: frozenset[str]


def build_specs_of(servable: Servable, *, runtime_weights: bool) -> tuple[BuildSpec, ...]:
    """The builds that `servable` needs.

    With `runtime_weights` (weights are applied per request) one build a member, else one build in all."""
    if runtime_weights:
        return tuple(_spec_of_member(member) for member in servable.members)
    name, versions, digests = servable.name, servable.versions, servable.digests
    return (BuildSpec(name, servable.components, name, versions, digests),)


def _spec_of_member(member: StoredAdapter) -> BuildSpec:
    component = replace(member.component, weight=1.0)
    return BuildSpec(component.directory, (component,), member.label, member.versions, member.digests)


@dataclass(eq=False)
class CacheEntry:
    """A build that is in host memory or under way."""

    spec: BuildSpec
    lora_int_id: int
    prepared: "asyncio.Task[float]"
    """The build. Its result is the seconds it took."""
    owners: set[frozenset[str]]
    """The sets of versions that requested this build. When the last set has a removed version, the build is
    dropped."""
    users: int = 0
    """Requests that wait for it or use it. Above 0 it may not be evicted."""

    @property
    def is_ready(self) -> bool:
        """True if the workers have it."""
        return self.prepared.done() and not self.prepared.cancelled() and self.prepared.exception() is None

    @property
    def has_failed(self) -> bool:
        """True if the build ended without a result."""
        return self.prepared.done() and not self.is_ready

    @property
    def is_removed(self) -> bool:
        """True if every set of versions that requested it has a removed version.

        Then its last user drops it."""
        return not self.owners


Sweep = Callable[[frozenset[str]], Awaitable[None]]
"""Deletes the files of removed adapters, except the files with the given digests."""


class PreparingEngine(Protocol):
    """What the cache needs of the engine.

    If `prepare` raises, it has changed nothing. If it is cancelled, it may have built the adapter.
    `unload` accepts both."""

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None: ...

    async def unload(self, lora_int_id: int, components: Sequence[Component]) -> None: ...


class AdapterCache:
    """At most `capacity` entries. `on_change` is called after a build failed or an entry may be evictable."""

    def __init__(
        self, engine: PreparingEngine, capacity: int, metrics: Metrics, on_change: Callable[[], None]
    ) -> None:
        self.capacity = capacity
        self._pins: dict[frozenset[str], str] = {}
        """Pinned versions, and the key of the entry that is never evicted because of them."""
        self._reserved: Counter[str] = Counter()
        self._engine = engine
        self._metrics = metrics
        metrics.pinned.set_function(lambda: len({*self._pins.values()}))
        self._on_change = on_change
        self._ids = itertools.count(1)
        self._entries: OrderedDict[str, CacheEntry] = OrderedDict()
        self._evictions: set[asyncio.Task[None]] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def entries(self) -> list[CacheEntry]:
        """All entries, the least recently used first."""
        return list(self._entries.values())

    def new_id(self) -> int:
        """A LoRA id that was never used before."""
        return next(self._ids)

    def capacity_for(self, keys: Collection[str]) -> int:
        """Capacity left for `keys` together with other builds, after pinned and reserved builds that are not
        among `keys`."""
        return self.capacity - len({*self._pins.values(), *+self._reserved} - {*keys})

    def reserve(self, keys: Iterable[str]) -> None:
        """Hold these entries for an unlimited time. Requests that would have to wait for their places are
        refused."""
        self._reserved.update(keys)

    def unreserve(self, keys: Iterable[str]) -> None:
        """Undo one `reserve`: requests may wait for these places again."""
        self._reserved.subtract(keys)

    def has_failed(self, key: str) -> bool:
        """True while a failed build still has waiters that have not seen its exception."""
        return key in self._entries and self._entries[key].has_failed

    def try_free(self, count: int, needed: Collection[str]) -> bool:
        """Free `count` places by evicting idle entries that are not `needed`, the least recently used first.

        False if that is not possible; then nothing is evicted."""
        excess = len(self._entries) + count - self.capacity
        if not count or excess <= 0:
            return True
        idle = [entry for entry in self.entries() if self.is_idle(entry) and entry.spec.key not in needed]
        if len(idle) < excess:
            return False
        for entry in idle[:excess]:
            self._evict(entry)
        return True

    def acquire(self, spec: BuildSpec) -> CacheEntry:
        """Add a user, and start the build if it is missing. A place must be free for it."""
        entry = self._entries.get(spec.key) or self.start_build(spec)
        self._entries.move_to_end(spec.key)
        entry.owners.add(spec.versions)
        entry.users += 1
        return entry

    def release(self, entry: CacheEntry) -> None:
        """Remove a user. The last user drops an entry that failed, so that the next request builds again."""
        entry.users -= 1
        if not entry.users and entry.has_failed:
            self._drop(entry)
        elif not entry.users and entry.is_removed:
            self._evict(entry)

    def start_build(self, spec: BuildSpec) -> CacheEntry:
        """Build it, without a user yet. A place must be free for it."""
        lora_int_id = self.new_id()
        task = asyncio.create_task(self._prepare(spec, lora_int_id))
        entry = self._entries[spec.key] = CacheEntry(spec, lora_int_id, task, {spec.versions})
        task.add_done_callback(lambda _: self._finish_build(entry))
        self._metrics.resident.set(len(self._entries))
        return entry

    async def _prepare(self, spec: BuildSpec, lora_int_id: int) -> float:
        if self._evictions:  # the workers never hold more than `capacity` builds, nor one build twice
            await asyncio.wait(self._evictions)  # a gather would pass a cancellation on to the evictions
        started = time.perf_counter()
        await self._engine.prepare(lora_int_id, spec.components)
        return time.perf_counter() - started

    def _finish_build(self, entry: CacheEntry) -> None:
        if entry.is_ready:
            seconds = entry.prepared.result()
            self._metrics.prepare_seconds.observe(seconds)
            logger.info("prepared %s as %d in %.3f s", entry.spec.label, entry.lora_int_id, seconds)
        else:
            if not entry.prepared.cancelled():
                self._metrics.prepare_failures.inc()
            self._pins = {versions: key for versions, key in self._pins.items() if key != entry.spec.key}
            if not entry.users:
                self._drop(entry)
        self._on_change()

    def _evict(self, entry: CacheEntry) -> None:
        if self._entries.get(entry.spec.key) is not entry:
            return
        self._drop(entry)
        task = asyncio.create_task(self._unload(entry))
        self._evictions.add(task)
        task.add_done_callback(self._finish_eviction)
        self._metrics.evictions.inc()
        logger.info("evicted %s", entry.spec.label)

    async def _unload(self, entry: CacheEntry) -> None:
        if entry.prepared.cancel():  # a prefetched adapter was removed during its build: no request waits
            await asyncio.wait([entry.prepared])
        await self._engine.unload(entry.lora_int_id, entry.spec.components)

    def _finish_eviction(self, task: "asyncio.Task[None]") -> None:
        self._evictions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an evicted adapter could not be unloaded: %s", error)

    def _drop(self, entry: CacheEntry) -> None:
        if self._entries.get(entry.spec.key) is entry:
            del self._entries[entry.spec.key]
        self._metrics.resident.set(len(self._entries))

    def is_pinned(self, entry: CacheEntry) -> bool:
        """True if a pin keeps it from being evicted."""
        return entry.spec.key in self._pins.values()

    def is_idle(self, entry: CacheEntry) -> bool:
        """True if it may be evicted."""
        return not entry.users and entry.prepared.done() and not self.is_pinned(entry)

    def pin(self, spec: BuildSpec) -> None:
        """Build it if it is missing, and never evict it. Raises Conflict("pins_exhausted")."""
        pinned = {*self._pins.values(), spec.key}
        fits = spec.key in self._entries or self.try_free(1, pinned)
        if len(pinned) > self.capacity // 2 or not fits:
            raise Conflict(
                Code.PINS_EXHAUSTED,
                f"The adapter cannot be pinned. At most half of the {self.capacity} places in host memory "
                "(--max-cpu-loras) can hold pinned adapters, and a new one needs a place that is not in use.",
                "name",
            )
        self._pins[spec.versions] = spec.key
        entry = self._entries.get(spec.key) or self.start_build(spec)
        entry.owners.add(spec.versions)

    def pins(self) -> list[frozenset[str]]:
        """The versions that each pin names."""
        return list(self._pins)

    def unpin(self, versions: frozenset[str]) -> None:
        """Allow the entry that was pinned for these versions to be evicted again."""
        self._pins.pop(versions, None)

    def remove(self, versions: frozenset[str]) -> None:
        """These versions were removed. Drop the builds that only they need: idle ones now, others after their
        last user."""
        self._pins = {pinned: key for pinned, key in self._pins.items() if not pinned & versions}
        for entry in self.entries():
            entry.owners = {owner for owner in entry.owners if not owner & versions}
            if entry.is_removed and not entry.users:
                self._evict(entry)

    async def wait_evicted(self) -> None:
        """Return when the workers have unloaded all evicted entries."""
        while self._evictions:
            await asyncio.wait(self._evictions)

    def digests(self) -> Iterable[str]:
        """The digests of the adapters in the cache."""
        return itertools.chain.from_iterable(entry.spec.digests for entry in self._entries.values())

    def check_integrity(self) -> None:
        """Assert what must hold between any two awaits."""
        entries = self.entries()
        assert len(entries) <= self.capacity
        assert len({entry.lora_int_id for entry in entries}) == len(entries)
        assert all(entry.users >= 0 for entry in entries)
        assert all(entry.users or not entry.is_removed for entry in entries)
        assert all(key == entry.spec.key for key, entry in self._entries.items())
        assert {*self._pins.values(), *+self._reserved} <= self._entries.keys()
