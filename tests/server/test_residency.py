"""Residency against a hand-written engine, for orders of events a real one cannot be made to show on time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from server.engine.spec import Component
from server.metrics import Metrics
from server.residency import Residency, Servable


class RecordingEngine:
    """Remembers what it holds. While `gate` is closed, `add_lora` waits; `broken` names fail."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.added: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: set[str] = set()

    async def add_lora(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None:
        self.added.append(name)
        await self.gate.wait()
        if name in self.broken:
            raise ValueError(name)
        self.held[name] = lora_int_id

    async def remove_lora(self, name: str, lora_int_id: int) -> None:
        assert self.held.pop(name) == lora_int_id


def servable(name: str) -> Servable:
    return Servable(
        name, (Component(f"/store/{name}", 1.0),), frozenset({name}), frozenset({f"digest-{name}"})
    )


class Swept:
    def __init__(self) -> None:
        self.held: list[frozenset[str]] = []

    async def __call__(self, held: frozenset[str]) -> None:
        self.held.append(held)


@asynccontextmanager
async def residency(capacity: int = 2) -> AsyncIterator[tuple[Residency, RecordingEngine, Swept]]:
    engine, swept = RecordingEngine(), Swept()
    made = Residency(engine, capacity, Metrics(), swept)
    yield made, engine, swept
    made.check_integrity()
    assert sorted(engine.held) == sorted(made.names())


async def test_any_number_of_waiting_requests_share_one_build() -> None:
    async with residency() as (resident, engine, _):
        engine.gate.clear()

        async def use() -> None:
            async with resident.hold(servable("a")):
                assert "a" in engine.held

        users = [asyncio.create_task(use()) for _ in range(100)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(*users)
        assert engine.added == ["a"]


async def test_the_least_recently_used_idle_one_makes_room() -> None:
    async with residency(capacity=2) as (resident, engine, _):
        for name in "aba":
            async with resident.hold(servable(name)):
                pass
        async with resident.hold(servable("c")):
            assert sorted(engine.held) == ["a", "c"]


async def test_one_in_use_is_never_evicted_and_the_newcomer_waits() -> None:
    async with residency(capacity=1) as (resident, engine, _):
        async with resident.hold(servable("a")):
            waiting = asyncio.create_task(hold_once(resident, "b"))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            assert list(engine.held) == ["a"]
        await waiting
        assert list(engine.held) == ["b"]


async def hold_once(resident: Residency, name: str) -> None:
    async with resident.hold(servable(name)):
        pass


async def test_a_failed_build_is_every_waiter_s_error_and_is_tried_again() -> None:
    async with residency() as (resident, engine, _):
        engine.broken.add("a")
        outcomes = await asyncio.gather(*(hold_once(resident, "a") for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
        engine.broken.clear()
        await hold_once(resident, "a")
        assert engine.added == ["a", "a"]


async def test_a_waiter_that_gives_up_leaves_the_build_to_the_others() -> None:
    async with residency() as (resident, engine, _):
        engine.gate.clear()
        first, second = (asyncio.create_task(hold_once(resident, "a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert engine.added == ["a"]


async def test_a_withdrawn_one_finishes_its_requests_and_then_leaves() -> None:
    async with residency() as (resident, engine, swept):
        async with resident.hold(servable("a")):
            await resident.withdraw(frozenset({"a"}))
            assert list(engine.held) == ["a"]
            assert swept.held[-1] == {"digest-a"}
        assert engine.held == {}
        assert swept.held[-1] == set()


async def test_a_withdrawn_idle_one_leaves_at_once() -> None:
    async with residency() as (resident, engine, _):
        await hold_once(resident, "a")
        await hold_once(resident, "b")
        await resident.withdraw(frozenset({"a"}))
        assert list(engine.held) == ["b"]
