"""The parts in the workers' host memory: each built once, kept while used, pinned or recent, then freed.

What one build in the workers' host memory is: a part that any number of compositions may share.
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


@dataclass(frozen=True)
class BuildSpec:
    """A part that a composition needs: what to build, the key it is shared under, and whose it is."""

    key: str
    components: tuple[Component, ...]
    label: str
    versions: frozenset[str]
    digests: frozenset[str]


def build_specs_of(servable: Servable, *, runtime_weights: bool) -> tuple[BuildSpec, ...]:
    """Its parts: each member by itself where weights are applied per request, else the whole of it."""
    if runtime_weights:
        return tuple(_single(member) for member in servable.members)
    name, versions, digests = servable.name, servable.versions, servable.digests
    return (BuildSpec(name, servable.components, name, versions, digests),)


def _single(member: StoredAdapter) -> BuildSpec:
    component = replace(member.component, weight=1.0)
    return BuildSpec(component.directory, (component,), member.label, member.versions, member.digests)


@dataclass(eq=False)
class CacheEntry:
    """One build in host memory, or on its way there."""

    order: BuildSpec
    lora_int_id: int
    prepared: "asyncio.Task[float]"
    """The seconds it took."""
    owners: set[frozenset[str]]
    """The versions it was asked for as, and is of use for while none of them is removed."""
    users: int = 0
    """Requests that wait for it or use it. Above 0 it may not be evicted."""

    @property
    def is_ready(self) -> bool:
        """Whether the workers have it."""
        return self.prepared.done() and not self.prepared.cancelled() and self.prepared.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether there will be none."""
        return self.prepared.done() and not self.is_ready

    @property
    def is_withdrawn(self) -> bool:
        """Whether all it was made for is removed: it leaves with its last user."""
        return not self.owners


logger = logging.getLogger(__name__)

Sweep = Callable[[frozenset[str]], Awaitable[None]]
"""Deletes the files of removed adapters, except those whose digests it is given."""


class PreparingEngine(Protocol):
    """What host memory needs of the engine.

    A `prepare` that raises changed nothing, one that is cancelled may have; `forget` takes either.
    """

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None: ...

    async def forget(self, lora_int_id: int, components: Sequence[Component]) -> None: ...


class AdapterCache:
    """At most `capacity` parts. `changed` is called whenever a part may have become free, or failed."""

    def __init__(
        self, engine: PreparingEngine, capacity: int, metrics: Metrics, changed: Callable[[], None]
    ) -> None:
        self.capacity = capacity
        self._pins: dict[frozenset[str], str] = {}
        """Pinned versions, and the part of each that is never evicted."""
        self._kept: Counter[str] = Counter()
        self._engine = engine
        self._metrics = metrics
        metrics.pinned.set_function(lambda: len({*self._pins.values()}))
        self._changed = changed
        self._ids = itertools.count(1)
        self._parts: OrderedDict[str, CacheEntry] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def parts(self) -> list[CacheEntry]:
        """Least recently used first."""
        return list(self._parts.values())

    def new_id(self) -> int:
        """A LoRA id nobody has had."""
        return next(self._ids)

    def room_for(self, keys: Collection[str]) -> int:
        """How many parts there can be of which these are some, beside what is pinned or kept."""
        return self.capacity - len({*self._pins.values(), *+self._kept} - {*keys})

    def keep(self, keys: Iterable[str]) -> None:
        """These are in use for as long as it takes: whoever would have to wait for that is refused."""
        self._kept.update(keys)

    def let_go(self, keys: Iterable[str]) -> None:
        """They may be waited for again."""
        self._kept.subtract(keys)

    def has_failed(self, key: str) -> bool:
        """Whether those who waited for it are just being told that it could not be built."""
        return key in self._parts and self._parts[key].has_failed

    def make_room(self, count: int, wanted: Collection[str]) -> bool:
        """Whether `count` more parts fit, evicting idle ones that are not `wanted`, oldest use first."""
        excess = len(self._parts) + count - self.capacity
        if not count or excess <= 0:
            return True
        idle = [part for part in self.parts() if self._is_idle(part) and part.order.key not in wanted]
        if len(idle) < excess:
            return False
        for part in idle[:excess]:
            self._evict(part)
        return True

    def enter(self, order: BuildSpec) -> CacheEntry:
        """One more user. There has to be room."""
        part = self._parts.get(order.key) or self.begin(order)
        self._parts.move_to_end(order.key)
        part.owners.add(order.versions)
        part.users += 1
        return part

    def leave(self, part: CacheEntry) -> None:
        """One user less. After the last one a part that failed is gone, and the next who asks builds anew."""
        part.users -= 1
        if not part.users and part.has_failed:
            self._drop(part)
        elif not part.users and part.is_withdrawn:
            self._evict(part)

    def begin(self, order: BuildSpec) -> CacheEntry:
        """Build it, with no user yet. There has to be room."""
        lora_int_id = self.new_id()
        task = asyncio.create_task(self._prepare(order, lora_int_id))
        part = self._parts[order.key] = CacheEntry(order, lora_int_id, task, {order.versions})
        task.add_done_callback(lambda _: self._done(part))
        self._metrics.resident.set(len(self._parts))
        return part

    async def _prepare(self, order: BuildSpec, lora_int_id: int) -> float:
        if self._leaving:  # the workers never have more than their share, nor one part twice
            await asyncio.wait(self._leaving)  # a gather would pass a cancellation on to them
        started = time.perf_counter()
        await self._engine.prepare(lora_int_id, order.components)
        return time.perf_counter() - started

    def _done(self, part: CacheEntry) -> None:
        if part.is_ready:
            seconds = part.prepared.result()
            self._metrics.prepare_seconds.observe(seconds)
            logger.info("prepared %s as %d in %.3f s", part.order.label, part.lora_int_id, seconds)
        else:
            if not part.prepared.cancelled():
                self._metrics.prepare_failures.inc()
            self._pins = {own: key for own, key in self._pins.items() if key != part.order.key}
            if not part.users:
                self._drop(part)
        self._changed()

    def _evict(self, part: CacheEntry) -> None:
        if self._parts.get(part.order.key) is not part:
            return
        self._drop(part)
        task = asyncio.create_task(self._forget(part))
        self._leaving.add(task)
        task.add_done_callback(self._left)
        self._metrics.evictions.inc()
        logger.info("evicted %s", part.order.label)

    async def _forget(self, part: CacheEntry) -> None:
        if part.prepared.cancel():  # nobody waits for it: an adapter that was removed while it was prefetched
            await asyncio.wait([part.prepared])
        await self._engine.forget(part.lora_int_id, part.order.components)

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an adapter could not be freed: %s", error)

    def _drop(self, part: CacheEntry) -> None:
        if self._parts.get(part.order.key) is part:
            del self._parts[part.order.key]
        self._metrics.resident.set(len(self._parts))

    def is_pinned(self, part: CacheEntry) -> bool:
        """Whether it is never evicted."""
        return part.order.key in self._pins.values()

    def _is_idle(self, part: CacheEntry) -> bool:
        return not part.users and part.prepared.done() and not self.is_pinned(part)

    def pin(self, order: BuildSpec) -> None:
        """Build it if need be and keep it. Raises Conflict("pins_exhausted") where others lack room."""
        pinned = {*self._pins.values(), order.key}
        fits = order.key in self._parts or self.make_room(1, pinned)
        if len(pinned) > self.capacity // 2 or not fits:
            raise Conflict(
                Code.PINS_EXHAUSTED,
                f"At most half of the {self.capacity} places in host memory (--max-cpu-loras) can be pinned, "
                "and only where one can be freed.",
                "name",
            )
        self._pins[order.versions] = order.key
        part = self._parts.get(order.key) or self.begin(order)
        part.owners.add(order.versions)

    def pins(self) -> list[frozenset[str]]:
        """The versions of each."""
        return list(self._pins)

    def unpin(self, versions: frozenset[str]) -> None:
        """What was pinned as these may be evicted again."""
        self._pins.pop(versions, None)

    def withdraw(self, versions: frozenset[str]) -> None:
        """These versions are removed: what only they need leaves now, or with its last user."""
        self._pins = {own: key for own, key in self._pins.items() if not own & versions}
        for part in self.parts():
            part.owners = {owner for owner in part.owners if not owner & versions}
            if part.is_withdrawn and not part.users:
                self._evict(part)

    async def settled(self) -> None:
        """Returns when what was evicted has left the workers."""
        while self._leaving:
            await asyncio.wait(self._leaving)

    def digests(self) -> Iterable[str]:
        """The bytes the parts were built of."""
        return itertools.chain.from_iterable(part.order.digests for part in self._parts.values())

    def check_integrity(self) -> None:
        """Assert what must hold between any two awaits."""
        parts = self.parts()
        assert len(parts) <= self.capacity
        assert len({part.lora_int_id for part in parts}) == len(parts)
        assert all(part.users >= 0 for part in parts)
        assert all(part.users or not part.is_withdrawn for part in parts)
        assert all(key == part.order.key for key, part in self._parts.items())
        assert {*self._pins.values(), *+self._kept} <= self._parts.keys()
