"""Switches of the base that fail, with a hand-written engine. Successful ones run on a real engine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lora_compose.adapters.errors import Conflict, StorageUnavailable, Unservable
from lora_compose.server.compositions.servable import Servable
from lora_compose.server.engine.spec import Component
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.scheduler import ResidencyScheduler
from tests.server.residency.test_scheduler import RecordingEngine, Swept, names, servable, turns, use


class LoadingEngine(RecordingEngine):
    """Records what each load of the base folded in. The next `failures` loads fail; `gate` blocks loads."""

    base = "base"
    max_lora_rank = 16

    def __init__(self, *, runtime_weights: bool, max_loras: int) -> None:
        super().__init__(runtime_weights=runtime_weights)
        self.max_loras = max_loras
        self.loaded: list[str] = []
        self.failures = 0
        self.unfoldable: str | None = None
        self.is_stopped = False

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None:
        await asyncio.sleep(0)
        return self.unfoldable

    async def load_base(self, components: Sequence[Component], progress: Path) -> float:
        self.loaded.append("+".join(component.directory for component in components))
        progress.write_text("0.5")
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is gone")
        return 0.25

    async def stop_serving(self) -> None:
        self.is_stopped = True


@asynccontextmanager
async def fusion(
    capacity: int = 4, *, runtime_weights: bool = True, max_loras: int = 4
) -> AsyncIterator[tuple[FusionSwitch, LoadingEngine, ResidencyScheduler]]:
    """When nothing is fused, nothing is held."""
    engine = LoadingEngine(runtime_weights=runtime_weights, max_loras=max_loras)
    resident = ResidencyScheduler(engine, capacity, max_loras, Metrics(), Swept())
    made = FusionSwitch(engine, resident, Metrics())
    yield made, engine, resident
    engine.gate.set()
    await turns()
    if made.state != "failed":
        await made.restore()
    await turns()
    resident.check_integrity()
    assert made.fused is None
    assert made.progress is None
    assert all(not entry.users for entry in resident.cache.entries())


async def test_a_failed_switch_is_counted_and_none_is_left_under_way() -> None:
    metrics, engine = Metrics(), LoadingEngine(runtime_weights=True, max_loras=4)
    made = FusionSwitch(engine, ResidencyScheduler(engine, 4, 4, metrics, Swept()), metrics)
    engine.failures = 1
    with pytest.raises(OSError, match="the disk is gone"):
        await made.fuse(servable("a"))
    await made.fuse(servable("a"))
    read = metrics.registry.get_sample_value
    assert read("lora_compose_fusion_switch_failures_total", {"kind": "fusing"}) == 1
    assert read("lora_compose_fusion_switch_duration_seconds_count", {"kind": "fusing"}) == 1
    assert read("lora_compose_fusion_switches_in_progress") == 0
    await made.restore()


def tells(fused: FusionSwitch) -> tuple[str, Servable | None]:
    return fused.state, fused.fused


async def test_what_is_fused_stays_in_host_memory_and_is_let_go_with_it() -> None:
    async with fusion(capacity=3) as (made, engine, resident):
        await made.fuse(servable("a"))
        for name in "bcde":
            await use(resident, name)
        assert "a" in names(resident)
        await made.restore()
        for name in "bcd":
            await use(resident, name)
        assert names(resident) == ["b", "c", "d"]
        assert engine.loaded == ["a", ""]


async def test_fusing_what_is_fused_and_restoring_what_is_plain_load_nothing() -> None:
    async with fusion() as (made, engine, _):
        await made.restore()
        await made.fuse(servable("a"))
        await made.fuse(servable("a"))
        assert engine.loaded == ["a"]


async def test_another_composition_takes_the_place_of_the_first_in_one_switch() -> None:
    async with fusion() as (made, engine, resident):
        await made.fuse(servable("a+b"))
        await made.fuse(servable("b:0.5"))
        assert tells(made) == ("fused", servable("b:0.5"))
        assert engine.loaded == ["a+b", "b"]
        assert [entry.users for entry in resident.cache.entries() if entry.spec.label == "a"] == [0]


async def test_one_failed_load_is_the_caller_s_error_and_the_plain_base() -> None:
    async with fusion() as (made, engine, resident):
        await made.fuse(servable("a"))
        engine.failures = 1
        with pytest.raises(OSError, match="disk"):
            await made.fuse(servable("b"))
        assert tells(made) == ("base", None)
        assert engine.loaded == ["a", "b", ""]
        assert all(not entry.users for entry in resident.cache.entries())
        made.check(None)
        made.check(servable("a"))
        await made.fuse(servable("b"))
        assert tells(made) == ("fused", servable("b"))


async def test_a_base_that_cannot_be_loaded_again_serves_nobody() -> None:
    async with fusion() as (made, engine, _):
        engine.failures = 2
        with pytest.raises(OSError, match="disk"):
            await made.fuse(servable("a"))
        assert tells(made) == ("failed", None)
        assert engine.is_stopped
        for wanted in (None, servable("a"), servable("b")):
            with pytest.raises(StorageUnavailable) as refused:
                made.check(wanted)
            assert refused.value.code == "base_lost"
        for again in (made.fuse(servable("a")), made.restore()):
            with pytest.raises(Conflict):
                await again


async def test_a_failed_restore_is_tried_once_more() -> None:
    async with fusion() as (made, engine, _):
        await made.fuse(servable("a"))
        engine.failures = 1
        with pytest.raises(OSError, match="disk"):
            await made.restore()
        assert tells(made) == ("base", None)


@pytest.mark.parametrize("moment", range(12))
async def test_whoever_asked_going_away_at_any_moment_leaves_the_base_settled(moment: int) -> None:
    async with fusion() as (made, engine, resident):
        await made.fuse(servable("a"))
        engine.gate.clear()
        switch = asyncio.create_task(made.fuse(servable("b")))
        await turns(moment)
        switch.cancel()
        await turns(2)
        engine.gate.set()
        await turns()
        assert switch.cancelled()
        assert tells(made) in (("fused", servable("a")), ("fused", servable("b")))
        held = [entry.spec.label for entry in resident.cache.entries() if entry.users]
        assert made.fused is not None
        assert held == [made.fused.name]


async def test_only_one_switch_at_a_time() -> None:
    async with fusion() as (made, engine, _):
        engine.gate.clear()
        switch = asyncio.create_task(made.fuse(servable("a")))
        await turns()
        for other in (made.fuse(servable("b")), made.fuse(servable("a")), made.restore()):
            with pytest.raises(Conflict) as refused:
                await other
            assert refused.value.code == "fusion_busy"
        engine.gate.set()
        await switch
        assert engine.loaded == ["a"]


async def test_how_far_a_switch_is_can_be_seen() -> None:
    async with fusion() as (made, engine, resident):
        await use(resident, "a")
        engine.gate.clear()
        switch = asyncio.create_task(made.fuse(servable("a")))
        await turns()
        assert (made.state, made.progress) == ("fusing", 0.5)
        engine.gate.set()
        await switch
        assert made.last is not None
        assert (made.progress, made.last.stalled_seconds) == (None, 0.25)


async def test_what_cannot_be_folded_is_refused_and_nothing_is_loaded() -> None:
    async with fusion() as (made, engine, _):
        await made.fuse(servable("a"))
        engine.unfoldable = "it is quantized"
        with pytest.raises(Unservable, match="quantized") as refused:
            await made.fuse(servable("b"))
        assert refused.value.code == "not_fusable"
        assert tells(made) == ("fused", servable("a"))
        assert engine.loaded == ["a"]


async def test_what_cannot_be_prepared_is_not_fused() -> None:
    async with fusion() as (made, engine, _):
        engine.broken.add("a")
        with pytest.raises(ValueError, match="a"):
            await made.fuse(servable("a"))
        assert tells(made) == ("base", None)
        assert engine.loaded == []


async def test_where_slots_hold_factors_a_residual_too_large_is_refused() -> None:
    async with fusion(runtime_weights=False) as (made, _, _):
        await made.fuse(servable("a+b"))
        made.check(None)
        for small in ("a+b", "a", "a:0.5+b", "a+b:-1"):
            made.check(servable(small))
        for large in ("c", "a:0.5+b:0.5+c"):
            with pytest.raises(Unservable, match="DELETE /v1/fusion") as refused:
                made.check(servable(large))
            assert refused.value.code == "rank_too_large"
        await made.restore()
        made.check(servable("c"))


async def test_where_weights_come_with_the_rows_no_residual_is_too_large() -> None:
    async with fusion() as (made, _, _):
        await made.fuse(servable("a+b"))
        made.check(servable("c+d"))


async def test_a_switch_under_way_refuses_what_would_not_fit_after_it() -> None:
    async with fusion(runtime_weights=False) as (made, engine, _):
        engine.gate.clear()
        switch = asyncio.create_task(made.fuse(servable("a+b")))
        await turns()
        with pytest.raises(Unservable):
            made.check(servable("c"))
        engine.gate.set()
        await switch


async def test_nothing_is_fused_under_a_request_whose_residual_would_not_fit() -> None:
    async with fusion(runtime_weights=False) as (made, engine, resident):
        async with resident.hold(servable("c")):
            with pytest.raises(Unservable) as refused:
                await made.fuse(servable("a+b"))
            assert refused.value.code == "not_fusable"
            assert tells(made) == ("base", None)
        await made.fuse(servable("a+b"))
        assert engine.loaded == ["a+b"]


async def test_one_slot_is_too_few_where_the_base_needs_one() -> None:
    async with fusion(runtime_weights=False, max_loras=1) as (made, _, _):
        with pytest.raises(Unservable, match="max-loras"):
            await made.fuse(servable("a"))


async def test_a_switch_that_would_need_more_room_than_there_is_ends() -> None:
    """The fused composition is held until the next one is loaded. If both do not fit, the next is refused."""
    async with fusion(capacity=3) as (made, _, _):
        await made.fuse(servable("a+b"))
        with pytest.raises(Unservable):
            await asyncio.wait_for(made.fuse(servable("c+d")), 1)
        assert tells(made) == ("fused", servable("a+b"))


async def test_a_request_that_finds_no_room_beside_what_is_fused_is_refused() -> None:
    """It would wait until the base is restored, and later requests would wait behind it."""
    async with fusion(capacity=2) as (made, _, resident):
        await made.fuse(servable("a+b"))
        with pytest.raises(Unservable, match="places"):
            await asyncio.wait_for(use(resident, "c"), 1)
