"""The scheduler with a hand-written engine, for orders of events that a real one does not show reliably."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from lora_compose.adapters.errors import Conflict, Unservable
from lora_compose.server.compositions.servable import Servable, StoredAdapter
from lora_compose.server.engine.spec import Component
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency import scheduler
from lora_compose.server.residency.scheduler import ResidencyScheduler


class RecordingEngine:
    """Records what it holds and exposes. While `gate` is closed, `prepare` waits. `broken` adapters fail."""

    def __init__(self, *, runtime_weights: bool) -> None:
        self.runtime_weights = runtime_weights
        self.held: dict[int, tuple[str, ...]] = {}
        self.most_held = 0
        self.built: list[str] = []
        self.exposed: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[str] = set()

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None:
        names = tuple(component.directory for component in components)
        self.built.append("+".join(names))
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.broken & set(names):
            raise ValueError(names)
        self.held[lora_int_id] = names
        self.most_held = max(self.most_held, len(self.held))

    async def unload(self, lora_int_id: int, components: Sequence[Component]) -> None:
        await asyncio.sleep(0)
        names = tuple(component.directory for component in components)
        assert self.held.pop(lora_int_id, names) == names

    def expose(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None:
        assert name not in self.exposed
        assert components
        self.exposed[name] = lora_int_id

    def hide(self, name: str) -> None:
        del self.exposed[name]


def servable(text: str) -> Servable:
    """ "a+b:0.5": members a and b, with weights."""
    members = []
    for part in text.split("+"):
        name, _, weight = part.partition(":")
        component = Component(name, float(weight or 1), 8)
        members.append(StoredAdapter(component, frozenset({name}), frozenset({f"digest-{name}"}), name))
    return Servable(text, tuple(members))


class Swept:
    def __init__(self) -> None:
        self.held: list[frozenset[str]] = []

    async def __call__(self, held: frozenset[str]) -> None:
        self.held.append(held)


@asynccontextmanager
async def residency(
    capacity: int = 2, slots: int = 8, *, runtime_weights: bool = True
) -> AsyncIterator[tuple[ResidencyScheduler, RecordingEngine, Swept]]:
    engine, swept = RecordingEngine(runtime_weights=runtime_weights), Swept()
    made = ResidencyScheduler(engine, capacity, slots, Metrics(), swept)
    yield made, engine, swept
    await made.cache.wait_evicted()
    made.check_integrity()
    assert not engine.exposed
    assert not made.active()
    assert not made.queued
    assert engine.most_held <= capacity
    assert sorted(engine.held) == sorted(entry.lora_int_id for entry in made.cache.entries())


async def use(resident: ResidencyScheduler, text: str, turns: int = 0) -> None:
    async with resident.hold(servable(text)):
        for _ in range(turns):
            await asyncio.sleep(0)


def names(resident: ResidencyScheduler) -> list[str]:
    return sorted(entry.spec.label for entry in resident.cache.entries())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_any_number_of_waiting_requests_share_one_build() -> None:
    async with residency() as (resident, engine, _):
        engine.gate.clear()
        users = [asyncio.create_task(use(resident, "a")) for _ in range(100)]
        await turns()
        engine.gate.set()
        await asyncio.gather(*users)
        assert engine.built == ["a"]


async def test_a_stack_of_prepared_members_builds_nothing_whatever_its_weights() -> None:
    async with residency(capacity=4) as (resident, engine, _):
        await use(resident, "a+b+c")
        for text in ("a:0.5+b", "c+b:-1", "a:0.1+b:0.2+c:0.3"):
            await use(resident, text)
        assert sorted(engine.built) == ["a", "b", "c"]


async def test_other_weights_of_the_same_members_share_a_slot() -> None:
    async with (
        residency(slots=1) as (resident, engine, _),
        resident.hold(servable("a+b:0.5")),
        resident.hold(servable("a+b:0.7")),
    ):
        assert len(set(engine.exposed.values())) == 1
        assert sorted(engine.exposed) == ["a+b:0.5", "a+b:0.7"]


async def test_without_weights_at_run_time_a_composition_is_built_whole() -> None:
    async with residency(capacity=3, runtime_weights=False) as (resident, engine, _):
        for text in ("a+b", "a+b:0.5", "a", "a+b"):
            await use(resident, text)
        assert engine.built == ["a+b", "a+b", "a"]


async def test_the_least_recently_used_idle_one_makes_room() -> None:
    async with residency(capacity=2) as (resident, _, _):
        for name in "abac":
            await use(resident, name)
        assert names(resident) == ["a", "c"]


async def test_one_in_use_is_never_evicted_and_the_newcomer_waits() -> None:
    async with residency(capacity=1) as (resident, _, _):
        async with resident.hold(servable("a")):
            waiting = asyncio.create_task(use(resident, "b"))
            await turns()
            assert not waiting.done()
            assert names(resident) == ["a"]
        await waiting
        assert names(resident) == ["b"]


async def test_more_sets_than_slots_wait_with_their_adapters_prepared() -> None:
    async with residency(capacity=4, slots=1) as (resident, engine, _):
        async with resident.hold(servable("a")):
            waiting = asyncio.create_task(use(resident, "b"))
            await turns()
            assert not waiting.done()
            assert engine.built == ["a", "b"]
        await waiting


async def test_who_has_waited_too_long_is_overtaken_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_OVERTAKE_SECONDS", 0.02)
    async with residency(capacity=4, slots=1) as (resident, _, _):
        served: list[str] = []

        async def client(name: str) -> None:
            async with resident.hold(servable(name)):
                served.append(name)
                await asyncio.sleep(0.005)

        hot: list[asyncio.Task[None]] = []
        # One "a" is always in flight and one waits, so without the limit "b" would never get the slot.
        for number in range(40):
            hot.append(asyncio.create_task(client("a")))
            if number == 2:
                hot.append(asyncio.create_task(client("b")))
            await asyncio.sleep(0.002)
        await asyncio.gather(*hot)
        assert 0 < served.index("b") < 30


async def test_a_failed_build_is_every_waiter_s_error_and_is_tried_again() -> None:
    async with residency() as (resident, engine, _):
        engine.broken.add("a")
        outcomes = await asyncio.gather(*(use(resident, "a") for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
        engine.broken.clear()
        await use(resident, "a")
        assert engine.built == ["a", "a"]


async def test_failed_builds_are_counted_and_given_up_ones_are_not() -> None:
    metrics, engine = Metrics(), RecordingEngine(runtime_weights=True)
    resident = ResidencyScheduler(engine, 2, 8, metrics, Swept())
    engine.broken.add("a")
    for name in "ab":
        with suppress(ValueError):
            await use(resident, name)
    assert metrics.registry.get_sample_value("lora_compose_prepare_failures_total") == 1
    assert metrics.registry.get_sample_value("lora_compose_host_capacity_adapters") == 2
    assert metrics.registry.get_sample_value("lora_compose_slots") == 8


async def test_a_waiter_that_gives_up_leaves_the_build_to_the_others() -> None:
    async with residency() as (resident, engine, _):
        engine.gate.clear()
        first, second = (asyncio.create_task(use(resident, "a")) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        engine.gate.set()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert engine.built == ["a"]


@pytest.mark.parametrize("moment", range(12))
async def test_giving_up_at_any_moment_gives_everything_back_once(moment: int) -> None:
    async with residency(capacity=2, slots=1) as (resident, _, _):
        async with resident.hold(servable("a")):
            task = asyncio.create_task(use(resident, "b", turns=4))
            await turns(moment % 4)
            if moment % 3 == 0:
                task.cancel()
        await turns(moment)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await use(resident, "c+b")
        assert all(not entry.users for entry in resident.cache.entries())


async def test_a_withdrawn_one_finishes_its_requests_and_then_leaves() -> None:
    async with residency() as (resident, _, swept):
        async with resident.hold(servable("a")):
            await resident.remove(frozenset({"a"}))
            assert names(resident) == ["a"]
            assert swept.held[-1] == {"digest-a"}
        assert names(resident) == []
        await turns()
        assert swept.held[-1] == set()


async def test_a_withdrawn_idle_one_leaves_at_once() -> None:
    async with residency() as (resident, _, _):
        await use(resident, "a+b")
        await resident.remove(frozenset({"a"}))
        assert names(resident) == ["b"]


async def test_a_pinned_one_stays_whatever_comes() -> None:
    async with residency(capacity=2) as (resident, _, _):
        await resident.pin(servable("a"))
        for name in "bcd":
            await use(resident, name)
        assert names(resident) == ["a", "d"]
        with pytest.raises(Conflict, match="half of the 2"):
            await resident.pin(servable("d"))
        resident.unpin(frozenset({"a"}))
        for name in "ef":
            await use(resident, name)
        assert names(resident) == ["e", "f"]


async def test_what_can_never_fit_is_refused_and_does_not_wait() -> None:
    async with residency(capacity=2) as (resident, _, _):
        with pytest.raises(Unservable, match="3 places"):
            await use(resident, "a+b+c")
        await resident.pin(servable("a"))
        with pytest.raises(Unservable, match="has 1 that no pinned or fused adapter holds"):
            await use(resident, "b+c")
        await use(resident, "a+c")


async def test_prefetching_takes_free_room_only() -> None:
    async with residency(capacity=2) as (resident, engine, _):
        for name in "abc":
            resident.prefetch(servable(name))
        await turns()
        assert engine.built == ["a", "b"]


async def test_the_workers_never_hold_more_than_their_share() -> None:
    async with residency(capacity=2) as (resident, engine, _):
        for name in "abcdefgh":
            await use(resident, name)
        assert engine.most_held == 2


@pytest.mark.parametrize("runtime_weights", [True, False])
@pytest.mark.parametrize("seed", range(4))
async def test_any_traffic_leaves_the_books_right(
    seed: int, runtime_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MAX_OVERTAKE_SECONDS", 0.001)
    draw = random.Random(seed)
    async with residency(capacity=5, slots=2, runtime_weights=runtime_weights) as (resident, engine, _):
        tasks: list[asyncio.Task[None]] = []
        for _ in range(300):
            event = draw.random()
            if event < 0.7:
                members = draw.sample("abcdefgh", draw.randint(1, 3))
                text = "+".join(f"{m}:{draw.choice(['1', '0.5'])}" for m in sorted(members))
                tasks.append(asyncio.create_task(use(resident, text, draw.randint(0, 8))))
            elif event < 0.85 and tasks:
                draw.choice(tasks).cancel()
            elif event < 0.9:
                await resident.remove(frozenset(draw.sample("abcdefgh", 2)))
            elif event < 0.95:
                engine.broken = set(draw.sample("abcdefgh", draw.randint(0, 2)))
            elif event < 0.97:
                resident.unpin(frozenset("ab"))
                tasks.append(asyncio.create_task(resident.pin(servable(draw.choice("ab")))))
            else:
                resident.prefetch(servable(draw.choice("abcdefgh")))
            await turns(draw.randint(0, 3))
            resident.check_integrity()
        resident.unpin(frozenset("ab"))
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(not entry.users for entry in resident.cache.entries())


async def test_files_of_a_removed_adapter_stay_until_its_last_use_ends() -> None:
    """A request may need the files before it has a build, for example while its merge is built."""
    async with residency() as (resident, _, swept):
        with resident.using(frozenset({"digest-a"})):
            with resident.using(frozenset({"digest-a", "digest-b"})):
                await resident.remove(frozenset({"a"}), frozenset({"digest-a"}))
                assert swept.held[-1] == {"digest-a", "digest-b"}
            await turns()
            assert len(swept.held) == 1
        await turns()
        assert swept.held[1:] == [frozenset()]
        with resident.using(frozenset({"digest-b"})):
            pass
        await turns()
        assert len(swept.held) == 2
