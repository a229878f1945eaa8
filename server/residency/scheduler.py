"""Where compositions are and for whom: prepared in host memory, active in a slot, in the order of the queue.

A request holds its parts (see `host_memory`) and a slot for as long as it runs. Where there is no room it
queues: others may overtake it while that costs it nothing, but nobody does once it has waited for `MAX_OVERTAKE_SECONDS`
seconds, so it waits at most that long and then for the requests before it. All of it runs on the event loop;
state changes only between two awaits, and what a request holds is given back without one.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
    """What residency needs of the engine."""

    @property
    def runtime_weights(self) -> bool: ...

    def offer(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None: ...

    def retract(self, name: str) -> None: ...


@dataclass(eq=False)
class Slot:
    """What vLLM takes for one adapter: a set of parts. It fills one slot while it has requests."""

    key: tuple[str, ...]
    lora_int_id: int
    servables: "Counter[Servable]" = field(default_factory=Counter)
    """Requests in flight, by what they want. vLLM's app answers to the names of these, and to no other."""


@dataclass(eq=False)
class Lease:
    """What an admitted request has to give back, once."""

    servable: Servable
    parts: tuple[CacheEntry, ...]
    bundle: Slot | None


@dataclass(eq=False)
class Waiter:
    """A request in the queue, since a time on the monotonic clock."""

    servable: Servable
    orders: tuple[BuildSpec, ...]
    needs_slot: bool
    since: float
    admitted: "asyncio.Future[Lease]"

    @property
    def key(self) -> tuple[str, ...]:
        """Requests with the same parts share a slot."""
        return tuple(sorted(order.key for order in self.orders))


class ResidencyScheduler:
    """Owner of the engine's adapters: `capacity` parts in host memory, `slots` sets of them in use."""

    def __init__(self, engine: LoraEngine, capacity: int, slots: int, metrics: Metrics, sweep: Sweep) -> None:
        self.slots = slots
        metrics.slots.set(slots)
        metrics.capacity.set(capacity)
        self.host = AdapterCache(engine, capacity, metrics, self._admit)
        self._engine = engine
        self._metrics = metrics
        self._sweep = sweep
        self._bundles: dict[tuple[str, ...], Slot] = {}
        self._queue: list[Waiter] = []
        self._sweeps: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(
        self, servable: Servable, *, needs_slot: bool = True, may_build: MayBuild | None = None
    ) -> AsyncIterator[None]:
        """The composition is prepared and, with a slot, served for as long as the context is open.

        `may_build` is called with the number of missing parts; it raises where they may not be built.
        Queues where there is no room. Raises what building it raised, to all who wait for it, and Unservable
        where there can never be room.
        """
        orders = self._orders(servable)
        missing = sum(order.key not in self.host for order in orders)
        if missing and may_build is not None:
            may_build(missing)
        held = await self._admission(servable, orders, needs_slot)
        try:
            for part in held.parts:
                if not part.is_ready:
                    await asyncio.shield(part.prepared)
            yield
        finally:
            self._give_back(held)

    @asynccontextmanager
    async def keep(self, servable: Servable) -> AsyncIterator[None]:
        """As `hold` without a slot, for nobody knows how long: nobody is left waiting for its places."""
        async with self.hold(servable, needs_slot=False):
            keys = [order.key for order in self._orders(servable)]
            self.host.keep(keys)
            self._admit()
            try:
                yield
            finally:
                self.host.let_go(keys)

    async def _admission(self, servable: Servable, orders: tuple[BuildSpec, ...], needs_slot: bool) -> Lease:
        admitted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        ticket = Waiter(servable, orders, needs_slot, time.monotonic(), admitted)
        self._queue.append(ticket)
        self._admit()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.cancelled():
                self._queue.remove(ticket)
                self._admit()
            elif admitted.exception() is None:
                self._give_back(admitted.result())
            raise
        finally:
            self._metrics.queue_seconds.observe(time.monotonic() - ticket.since)

    def _orders(self, servable: Servable) -> tuple[BuildSpec, ...]:
        return build_specs_of(servable, runtime_weights=self._engine.runtime_weights)

    def _admit(self) -> None:
        """Let in whom there is room for, in order; past one who has waited too long nobody goes."""
        now, ahead = time.monotonic(), set[str]()
        for ticket in list(self._queue):
            if ticket.admitted.cancelled():
                continue
            try:
                held = self._try(ticket, ahead)
            except Unservable as error:
                self._queue.remove(ticket)
                ticket.admitted.set_exception(error)
                continue
            if held is not None:
                self._queue.remove(ticket)
                ticket.admitted.set_result(held)
            elif now - ticket.since >= MAX_OVERTAKE_SECONDS:
                break
            else:
                ahead.update(ticket.key)
        self._metrics.queued.set(len(self._queue))

    def _try(self, ticket: Waiter, ahead: set[str]) -> Lease | None:
        """Its parts and its slot, all or nothing; `ahead` are the parts of those before it in the queue."""
        self._check_fits(ticket)
        if any(self.host.has_failed(order.key) for order in ticket.orders):
            return None
        missing = [order for order in ticket.orders if order.key not in self.host]
        if not self.host.make_room(len(missing), {*ticket.key, *ahead}):
            return None
        if ticket.needs_slot and ticket.key not in self._bundles and len(self._bundles) >= self.slots:
            for order in missing:  # prepared by the time there is a slot
                self.host.begin(order)
            return None
        (self._metrics.misses if missing else self._metrics.hits).inc()
        parts = tuple(self.host.enter(order) for order in ticket.orders)
        return Lease(ticket.servable, parts, self._take_slot(ticket, parts) if ticket.needs_slot else None)

    def _check_fits(self, ticket: Waiter) -> None:
        room = self.host.room_for(ticket.key)
        if len(ticket.orders) > room:
            raise Unservable(
                Code.TOO_MANY_MEMBERS,
                f"{ticket.servable.name} needs {len(ticket.orders)} places in host memory; {room} are "
                "neither pinned nor fused (--max-cpu-loras).",
                "adapters",
            )

    def _take_slot(self, ticket: Waiter, parts: tuple[CacheEntry, ...]) -> Slot:
        bundle = self._bundles.get(ticket.key)
        if bundle is None:
            lora_int_id = parts[0].lora_int_id if len(parts) == 1 else self.host.new_id()
            bundle = self._bundles[ticket.key] = Slot(ticket.key, lora_int_id)
        servable = ticket.servable
        if not bundle.servables[servable]:
            self._engine.offer(servable.name, bundle.lora_int_id, servable.components)
        bundle.servables[servable] += 1
        self._metrics.active.set(len(self._bundles))
        return bundle

    def _give_back(self, held: Lease) -> None:
        if held.bundle is not None:
            self._free_slot(held.bundle, held.servable)
        for part in held.parts:
            self.host.leave(part)
        if any(part.is_withdrawn for part in held.parts):
            task = asyncio.create_task(self._swept())
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)
        self._admit()

    def _free_slot(self, bundle: Slot, servable: Servable) -> None:
        bundle.servables[servable] -= 1
        if not bundle.servables[servable]:
            del bundle.servables[servable]
            self._engine.retract(servable.name)
        if not bundle.servables:
            del self._bundles[bundle.key]
        self._metrics.active.set(len(self._bundles))

    def wanted(self) -> list[Servable]:
        """What requests in flight and in the queue want."""
        in_flight = (servable for bundle in self._bundles.values() for servable in bundle.servables)
        return [*in_flight, *(ticket.servable for ticket in self._queue)]

    def pinned_ids(self) -> set[str]:
        """The versions that are pinned, as `name@number`."""
        return {one for versions in self.host.pins() for one in versions}

    def prefetch(self, servable: Servable) -> None:
        """Begin to build what is missing, where that evicts nothing and keeps nobody waiting."""
        for order in self._orders(servable):
            if order.key not in self.host and not self._queue and len(self.host.parts()) < self.host.capacity:
                self.host.begin(order)

    async def pin(self, servable: Servable) -> None:
        """Keep one adapter in host memory until it is unpinned. Raises Conflict("pins_exhausted")."""
        (order,) = self._orders(servable)
        self.host.pin(order)
        async with self.hold(servable, needs_slot=False):
            pass

    def unpin(self, versions: frozenset[str]) -> None:
        """They may be evicted again."""
        self.host.unpin(versions)
        self._admit()

    async def withdraw(self, versions: frozenset[str]) -> None:
        """These versions are removed: requests in flight finish, idle parts go now, files when unused."""
        self.host.withdraw(versions)
        await self._swept()
        self._admit()

    async def _swept(self) -> None:
        await self.host.settled()
        waiting = (ticket.servable.digests for ticket in self._queue)
        await self._sweep(frozenset(self.host.digests()).union(*waiting))

    def active(self) -> list[dict[str, int]]:
        """Each slot in use: requests in flight, by canonical name."""
        return [
            {servable.name: requests for servable, requests in bundle.servables.items()}
            for bundle in self._bundles.values()
        ]

    @property
    def queued(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def check_integrity(self) -> None:
        """Assert what must hold between any two awaits: within capacity, and every count accounted for."""
        self.host.check_integrity()
        assert len(self._bundles) <= self.slots
        assert all(b.servables and min(b.servables.values()) > 0 for b in self._bundles.values())
        for part in self.host.parts():
            requests = sum(b.servables.total() for b in self._bundles.values() if part.order.key in b.key)
            assert part.users >= requests, (part.order.label, part.users, requests)
        assert all(not ticket.admitted.done() or ticket.admitted.cancelled() for ticket in self._queue)
