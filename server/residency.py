"""Which compositions the engine holds, and for whom: prepared once, kept while used, removed for good.

A composition is built once for any number of waiting requests, has at least one request in flight until the
last is released, and only then may be evicted, least recently used first. Nobody else adds to the engine or
removes from it. All of it runs on the event loop; nothing here is for threads.
"""

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from server.engine.spec import Component
from server.metrics import Metrics

logger = logging.getLogger(__name__)


Sweep = Callable[[frozenset[str]], Awaitable[None]]
"""Deletes the files of removed adapters, except those whose digests it is given."""


@dataclass(frozen=True)
class Servable:
    """A composition ready for the engine: its canonical name, and the store directories it is made of."""

    name: str
    components: tuple[Component, ...]
    versions: frozenset[str]
    """`name@number` of every adapter it depends on, also those that went into a merge."""
    digests: frozenset[str]
    """The bytes of those versions."""


class LoraEngine(Protocol):
    """What residency needs of the engine. Both calls mutate it; an `add_lora` that raises changed nothing."""

    async def add_lora(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None: ...

    async def remove_lora(self, name: str, lora_int_id: int) -> None: ...


@dataclass
class Resident:
    """One composition in the engine, or on its way there."""

    servable: Servable
    lora_int_id: int
    prepared: "asyncio.Task[None]"
    users: int = 0
    """Requests that wait for it or use it. Above 0 it may not be evicted."""
    withdrawn: bool = False
    """An adapter in it was removed: it leaves with its last user and takes no new ones."""


class Residency:
    """Owner of the engine's set of adapters. At most `capacity` compositions are resident at a time."""

    def __init__(self, engine: LoraEngine, capacity: int, metrics: Metrics, sweep: Sweep) -> None:
        self._engine = engine
        self._capacity = capacity
        self._metrics = metrics
        self._sweep = sweep
        self._ids = itertools.count(1)
        self._residents: OrderedDict[str, Resident] = OrderedDict()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, servable: Servable) -> AsyncIterator[None]:
        """The composition is in the engine for as long as the context is open.

        Waits while every resident one is in use. Raises what `add_lora` raised, to every waiter.
        """
        resident = await self._enter(servable)
        try:
            await asyncio.shield(resident.prepared)
            yield
        finally:
            resident.users -= 1
            await self._left(resident)

    async def _enter(self, servable: Servable) -> Resident:
        async with self._changed:
            while True:
                resident = self._residents.get(servable.name)
                if resident is not None and not resident.withdrawn:
                    self._residents.move_to_end(servable.name)
                    break
                if resident is None and await self._make_room():
                    resident = self._begin(servable)
                    break
                await self._changed.wait()
            resident.users += 1
            return resident

    async def _make_room(self) -> bool:
        """Whether there is room for one more, evicting the least recently used idle one if need be."""
        if len(self._residents) < self._capacity:
            return True
        idle = next((r for r in self._residents.values() if not r.users and r.prepared.done()), None)
        if idle is None:
            return False
        await self._evict(idle)
        return True

    def _begin(self, servable: Servable) -> Resident:
        lora_int_id = next(self._ids)
        task = asyncio.create_task(self._prepare(servable, lora_int_id))
        resident = Resident(servable, lora_int_id, task)
        self._residents[servable.name] = resident
        self._metrics.resident.set(len(self._residents))
        return resident

    async def _prepare(self, servable: Servable, lora_int_id: int) -> None:
        started = time.perf_counter()
        await self._engine.add_lora(servable.name, lora_int_id, servable.components)
        seconds = time.perf_counter() - started
        self._metrics.prepare_seconds.observe(seconds)
        logger.info("prepared %s as %d in %.3f s", servable.name, lora_int_id, seconds)

    async def _left(self, resident: Resident) -> None:
        async with self._changed:
            if not resident.users:
                await self._leave_alone(resident)
            self._changed.notify_all()

    async def _leave_alone(self, resident: Resident) -> None:
        """What becomes of a resident without users: kept, unless it failed or was withdrawn."""
        if resident.prepared.done() and _failed(resident.prepared):
            self._drop(resident)
        elif resident.withdrawn:
            await self._evict(resident)
            await self._sweep(self._held_digests())

    async def _evict(self, resident: Resident) -> None:
        self._drop(resident)
        await self._engine.remove_lora(resident.servable.name, resident.lora_int_id)
        self._metrics.evictions.inc()
        logger.info("evicted %s", resident.servable.name)

    def _drop(self, resident: Resident) -> None:
        if self._residents.get(resident.servable.name) is resident:
            del self._residents[resident.servable.name]
        self._metrics.resident.set(len(self._residents))

    async def withdraw(self, versions: frozenset[str]) -> None:
        """These versions are removed: requests in flight finish, idle residents go now, files when unused."""
        async with self._changed:
            gone = [r for r in self._residents.values() if r.servable.versions & versions]
            for resident in gone:
                resident.withdrawn = True
            for resident in [r for r in gone if not r.users]:
                await self._evict(resident)
            await self._sweep(self._held_digests())
            self._changed.notify_all()

    def _held_digests(self) -> frozenset[str]:
        return frozenset().union(*(resident.servable.digests for resident in self._residents.values()))

    def names(self) -> list[str]:
        """Resident compositions, least recently used first."""
        return list(self._residents)

    def check_integrity(self) -> None:
        """Assert what must hold between any two awaits: ids unique, within capacity, no count below zero."""
        residents = list(self._residents.values())
        assert len({resident.lora_int_id for resident in residents}) == len(residents)
        assert len(residents) <= self._capacity
        assert all(resident.users >= 0 for resident in residents)
        assert all(name == resident.servable.name for name, resident in self._residents.items())


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.cancelled() or task.exception() is not None
