"""The order of the queue, the order of events, and cancelling a request at any point."""

import asyncio
from collections.abc import Sequence

import pytest

from lora_compose.server.engine.spec import Component
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency import scheduler
from lora_compose.server.residency.scheduler import ResidencyScheduler
from tests.server.residency.test_scheduler import (
    RecordingEngine,
    Swept,
    names,
    residency,
    servable,
    turns,
    use,
)


class Clock:
    """Blocks until it is released."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(scheduler, "time", made)
    return made


async def relay(resident: ResidencyScheduler, hot: str, rare: str, clock: Clock, seconds: float) -> int:
    """Send overlapping `hot` requests without a pause, and one `rare` request after the first.

    Each takes `seconds`. Returns how many hot requests began before the rare one; 100 if it never began.
    """
    served: list[str] = []

    async def client(name: str, done: asyncio.Event) -> None:
        async with resident.hold(servable(name)):
            served.append(name)
            await done.wait()

    done = asyncio.Event()
    tasks = [asyncio.create_task(client(hot, done))]
    await turns()
    for number in range(100):
        last, done = done, asyncio.Event()
        if number == 0:
            tasks.append(asyncio.create_task(client(rare, done)))
        tasks.append(asyncio.create_task(client(hot, done)))
        await turns()
        clock.now += seconds
        last.set()
        await turns()
        if rare in served:
            break
    done.set()
    await asyncio.gather(*tasks)
    return served.index(rare) if served.count(hot) < 100 else 100


@pytest.mark.parametrize("runtime_weights", [True, False])
@pytest.mark.parametrize(("capacity", "slots"), [(4, 1), (1, 4)])
async def test_nobody_overtakes_who_has_waited_too_long(
    capacity: int, slots: int, runtime_weights: bool, clock: Clock
) -> None:
    for seconds in (
        scheduler.MAX_OVERTAKE_SECONDS / 4,
        scheduler.MAX_OVERTAKE_SECONDS / 2,
        scheduler.MAX_OVERTAKE_SECONDS * 2,
    ):
        async with residency(capacity, slots, runtime_weights=runtime_weights) as (resident, _, _):
            overtaken = await relay(resident, "hot", "rare", clock, seconds)
            assert overtaken <= scheduler.MAX_OVERTAKE_SECONDS / seconds + 2


async def test_who_needs_much_is_served_although_those_who_need_little_keep_coming(clock: Clock) -> None:
    async with residency(capacity=3, slots=8) as (resident, _, _):
        assert await relay(resident, "a", "b+c+d", clock, scheduler.MAX_OVERTAKE_SECONDS / 2) <= 4


async def test_the_patient_are_served_in_the_order_they_came(clock: Clock) -> None:
    served: list[str] = []

    async def client(name: str) -> None:
        async with resident.hold(servable(name)):
            served.append(name)

    async with residency(capacity=1) as (resident, _, _):
        async with resident.hold(servable("a")):
            tasks = [asyncio.create_task(client(name)) for name in "bcdbe"]
            await turns()
            clock.now += scheduler.MAX_OVERTAKE_SECONDS
        await asyncio.gather(*tasks)
    assert served == list("bcdbe")


class OrderedEngine(RecordingEngine):
    """Records the start and the end of each call."""

    def __init__(self) -> None:
        super().__init__(runtime_weights=True)
        self.events: list[str] = []

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None:
        self.events.append(f"prepare {components[0].directory}")
        await super().prepare(lora_int_id, components)

    async def unload(self, lora_int_id: int, components: Sequence[Component]) -> None:
        await turns()
        await super().unload(lora_int_id, components)
        self.events.append(f"forgot {components[0].directory}")


async def test_what_is_evicted_has_left_before_the_next_is_built() -> None:
    engine = OrderedEngine()
    resident = ResidencyScheduler(engine, 1, 1, Metrics(), Swept())
    for name in "aba":
        await use(resident, name)
    assert engine.events == ["prepare a", "forgot a", "prepare b", "forgot b", "prepare a"]


@pytest.mark.parametrize("runtime_weights", [True, False])
@pytest.mark.parametrize("moment", range(25))
async def test_a_request_cut_off_after_any_number_of_turns_gives_back_what_it_had(
    moment: int, runtime_weights: bool
) -> None:
    """Each step (queued, admitted, building, served, released) is some turn of the loop."""
    async with residency(capacity=2, slots=1, runtime_weights=runtime_weights) as (resident, _, _):
        first = asyncio.create_task(use(resident, "a", turns=6))
        second = asyncio.create_task(use(resident, "b+c", turns=6))
        third = asyncio.create_task(use(resident, "b", turns=2))
        await turns(moment)
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert not first.cancelled()
        assert not third.cancelled()
        assert all(not entry.users for entry in resident.cache.entries())
        await use(resident, "c+d")


@pytest.mark.parametrize("moment", range(12))
async def test_a_request_cut_off_while_its_build_fails_leaves_the_error_to_the_others(moment: int) -> None:
    async with residency() as (resident, engine, _):
        engine.broken.add("a")
        tasks = [asyncio.create_task(use(resident, "a")) for _ in range(3)]
        await turns(moment)
        tasks[0].cancel()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError | ValueError)
        assert [type(other) for other in others] == [ValueError] * 2
        engine.broken.clear()
        await use(resident, "a")
        assert names(resident) == ["a"]


async def test_an_adapter_removed_while_it_is_prefetched_is_freed() -> None:
    async with residency() as (resident, engine, _):
        engine.gate.clear()
        resident.prefetch(servable("a"))
        await turns()
        removal = asyncio.create_task(resident.remove(frozenset({"a"})))
        await turns()
        engine.gate.set()
        await removal
        assert names(resident) == []
        assert not engine.held


async def test_the_queue_is_empty_for_prefetching_or_it_waits() -> None:
    async with residency(capacity=3, slots=1) as (resident, engine, _):
        async with resident.hold(servable("a")):
            waiting = asyncio.create_task(use(resident, "b"))
            await turns()
            resident.prefetch(servable("c"))
            await turns()
            assert engine.built == ["a", "b"]
        await waiting
