"""The cost of LoRA by the times of whole steps, with a clock that the test sets."""

import time

import pytest

from lora_compose.server.engine.cpu.cost_meter import CountedLoad
from lora_compose.server.engine.worker.step_times import StepTimes

BASE = CountedLoad.of([None], [{}], [8], 8)
ONE = CountedLoad.of(["one"], [{"a": 1.0}], [8], 8)
STACK = CountedLoad.of(["stack"], [dict.fromkeys("abcd", 1.0)], [8], 8)
HALF = CountedLoad.of(["one", None], [{"a": 1.0}, {}], [4, 4], 8)
PREFILL = CountedLoad.of([None], [{}], [300], 1)


class Clock:
    """Steps of a meter with given lengths."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.meter = 100.0, StepTimes()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        self.meter.read()

    def steps(self, load: CountedLoad, seconds: float, count: int = 10) -> None:
        for _ in range(count):
            self.meter.step(load)
            self.now += seconds


def overheads(clock: Clock) -> dict[float, float]:
    clock.steps(BASE, 0.005, 1)
    return {members: cost for members, cost, _ in clock.meter.read()["overheads"]}


def test_the_cost_is_the_difference_to_steps_without_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.steps(BASE, 0.005)
    clock.steps(ONE, 0.006)
    clock.steps(STACK, 0.0065)
    assert overheads(clock) == {1: pytest.approx(0.2), 4: pytest.approx(0.3)}


def test_the_rows_with_lora_bear_the_cost_of_a_mixed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.steps(BASE, 0.005)
    clock.steps(HALF, 0.006)
    assert overheads(clock) == {1: pytest.approx(0.4)}


def test_nothing_is_reported_before_a_step_of_the_same_kind_without_lora(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    clock.steps(PREFILL, 0.005)
    clock.steps(ONE, 0.006)
    clock.meter.step(PREFILL)
    assert clock.meter.read()["overheads"] == []


def test_a_pause_is_not_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.steps(BASE, 0.005)
    clock.steps(ONE, 0.006, 9)
    clock.steps(ONE, 60.0, 1)
    assert overheads(clock) == {1: pytest.approx(0.2)}
