"""Pins: which adapters stay in host memory, how many may, and when a pin ends."""

import asyncio

import pytest

from lora_compose.adapters.errors import Conflict
from lora_compose.server.compositions.servable import Servable, StoredAdapter
from lora_compose.server.engine.spec import Component
from tests.server.residency.test_scheduler import names, residency, servable, turns, use


def merge(text: str, of: str) -> Servable:
    """A merge of the adapters `of`, in its own directory."""
    member = StoredAdapter(
        Component(text, 1.0, 8), frozenset(of), frozenset(f"digest-{name}" for name in of), text
    )
    return Servable(text, (member,))


async def test_pinning_twice_is_pinning_once() -> None:
    async with residency(capacity=4) as (resident, engine, _):
        for _ in range(3):
            await resident.pin(servable("a"))
        await resident.pin(servable("b"))
        with pytest.raises(Conflict) as refused:
            await resident.pin(servable("c"))
        assert refused.value.code == "pins_exhausted"
        assert engine.built == ["a", "b"]


async def test_a_pin_takes_no_room_from_what_is_in_use() -> None:
    async with residency(capacity=2) as (resident, _, _), resident.hold(servable("a+b")):
        with pytest.raises(Conflict):
            await resident.pin(servable("c"))
        await resident.pin(servable("a"))
        assert names(resident) == ["a", "b"]


async def test_a_pin_ends_with_its_version() -> None:
    async with residency(capacity=2) as (resident, _, _):
        await resident.pin(servable("a"))
        await resident.remove(frozenset({"a"}))
        assert names(resident) == []
        await resident.pin(servable("b"))
        for name in "cd":
            await use(resident, name)
        assert names(resident) == ["b", "d"]


async def test_the_same_bytes_under_another_name_are_pinned_as_long_as_one_of_them_is() -> None:
    def named(version: str) -> Servable:
        return Servable(
            version,
            (
                StoredAdapter(
                    Component("bytes", 1.0, 8), frozenset({version}), frozenset({"digest"}), version
                ),
            ),
        )

    async with residency(capacity=2) as (resident, engine, _):
        await resident.pin(named("a"))
        await resident.pin(named("b"))
        await resident.remove(frozenset({"a"}))
        for name in "cd":
            await use(resident, name)
        assert engine.built.count("bytes") == 1
        resident.unpin(frozenset({"b"}))
        for name in "ef":
            await use(resident, name)
        assert names(resident) == ["e", "f"]


async def test_whoever_waits_gets_the_room_an_unpinned_one_leaves() -> None:
    async with residency(capacity=2) as (resident, _, _):
        await resident.pin(servable("a"))
        async with resident.hold(servable("b")):
            waiting = asyncio.create_task(use(resident, "c"))
            await turns()
            assert not waiting.done()
            resident.unpin(frozenset({"a"}))
            await waiting


async def test_merges_of_pinned_adapters_are_not_pinned() -> None:
    async with residency(capacity=4) as (resident, _, _):
        for name in "ab":
            await resident.pin(servable(name))
        for rank in range(4):
            async with resident.hold(merge(f"svd{rank}", of="ab")):
                pass
        await use(resident, "c+d")


async def test_other_weights_of_a_pinned_adapter_are_not_pinned() -> None:
    async with residency(capacity=4, runtime_weights=False) as (resident, _, _):
        await resident.pin(servable("a"))
        for weight in range(2, 6):
            await use(resident, f"a:{weight}")
        await use(resident, "c")
        assert "a" in names(resident)


async def test_a_pin_that_was_refused_pins_nothing() -> None:
    async with residency(capacity=2) as (resident, engine, _):
        engine.broken.add("a")
        with pytest.raises(ValueError, match="a"):
            await resident.pin(servable("a"))
        engine.broken.clear()
        for name in "abc":
            await use(resident, name)
        assert names(resident) == ["b", "c"]
