"""Fusion against a hand-written engine, for faults the real one cannot be made to show."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.errors import Conflict, StorageUnavailable, Unservable
from server.engine.spec import Component
from server.fusion import Fusion
from server.metrics import Metrics
from server.residency import Residency
from tests.server.test_residency import RecordingEngine, Swept, servable


class FusingEngine(RecordingEngine):
    """Loads a base; the next `failures` loads fail."""

    base = "base"
    max_lora_rank = 16
    max_loras = 8

    def __init__(self, *, runtime_weights: bool = True) -> None:
        super().__init__(runtime_weights=runtime_weights)
        self.loaded: list[list[str]] = []
        self.failures = 0
        self.stopped = False

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None:
        return "it is quantized" if components[0].directory == "quantized" else None

    async def load_base(self, components: Sequence[Component], progress: Path) -> float:
        progress.write_text("0.5")
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("disk")
        self.loaded.append([component.directory for component in components])
        return 0.1

    async def stop_serving(self) -> None:
        self.stopped = True


def fusion(engine: FusingEngine) -> tuple[Fusion, Residency]:
    residency = Residency(engine, 4, 2, Metrics(), Swept())
    return Fusion(engine, residency, Metrics()), residency


async def test_the_members_stay_in_memory_while_they_are_fused() -> None:
    made, residency = fusion(FusingEngine())
    await made.fuse(servable("a+b"))
    assert [part.users for part in residency.host.parts()] == [1, 1]
    await made.fuse(servable("b+c"))
    assert {part.order.label: part.users for part in residency.host.parts()} == {"a": 0, "b": 1, "c": 1}
    await made.restore()
    assert all(not part.users for part in residency.host.parts())


async def test_a_load_that_fails_leaves_the_plain_base() -> None:
    engine = FusingEngine()
    made, residency = fusion(engine)
    engine.failures = 1
    with pytest.raises(RuntimeError, match="disk"):
        await made.fuse(servable("a"))
    assert (made.state, made.fused, engine.loaded) == ("base", None, [[]])
    made.check(servable("x"))
    await made.fuse(servable("a"))
    engine.failures = 1
    with pytest.raises(RuntimeError, match="disk"):
        await made.fuse(servable("b"))
    assert (made.state, made.fused) == ("base", None)
    assert all(not part.users for part in residency.host.parts())


async def test_without_a_base_nothing_is_served_any_more() -> None:
    engine = FusingEngine()
    made, _ = fusion(engine)
    engine.failures = 2
    with pytest.raises(RuntimeError, match="disk"):
        await made.fuse(servable("a"))
    assert made.state == "failed"
    assert engine.stopped
    for wanted in (None, servable("a")):
        with pytest.raises(StorageUnavailable, match="could not be restored"):
            made.check(wanted)
    with pytest.raises(Conflict):
        await made.restore()


async def test_who_asked_may_go_away_in_the_middle() -> None:
    engine = FusingEngine()
    made, _ = fusion(engine)
    engine.gate.clear()
    asking = asyncio.create_task(made.fuse(servable("a")))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(Conflict, match="fusing"):
        await made.fuse(servable("b"))
    engine.gate.set()
    await asyncio.sleep(0.01)
    assert (made.state, made.fused and made.fused.name) == ("fused", "a")


async def test_what_cannot_be_folded_is_refused_with_its_reason() -> None:
    engine = FusingEngine()
    made, _ = fusion(engine)
    with pytest.raises(Unservable, match="quantized"):
        await made.fuse(servable("quantized"))
    assert (made.state, engine.loaded) == ("base", [])


async def test_where_slots_hold_factors_a_residual_has_to_fit_one() -> None:
    made, residency = fusion(FusingEngine(runtime_weights=False))
    await made.fuse(servable("a+b"))
    made.check(None)
    made.check(servable("a"))
    made.check(servable("a+b"))
    with pytest.raises(Unservable, match=r"rank 24 .* is 16"):
        made.check(servable("c"))
    await made.restore()
    async with residency.hold(servable("c")):
        with pytest.raises(Unservable, match="cannot be fused"):
            await made.fuse(servable("a+b"))
    assert made.state == "base"


async def test_a_single_slot_is_none_too_many() -> None:
    engine = FusingEngine(runtime_weights=False)
    engine.max_loras = 1
    made, _ = fusion(engine)
    with pytest.raises(Unservable, match="--max-loras"):
        await made.fuse(servable("a"))
