"""The time limit of a run."""

from dataclasses import replace

import pytest

from lora_compose.benchmarks.serving import budget as module
from lora_compose.benchmarks.serving.budget import Budget
from lora_compose.benchmarks.serving.results.plan import QUICK_SECONDS, Plan
from lora_compose.benchmarks.serving.runner import in_groups


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time. Tests change it."""
    now = [100.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


def test_a_part_that_would_end_too_late_is_not_begun(clock: list[float]) -> None:
    budget = Budget(60.0)
    assert budget.allows("repeat")
    budget.took("repeat", 25.0)
    clock[0] += 30.0
    assert budget.allows("repeat")
    clock[0] += 10.0
    assert not budget.allows("repeat")
    assert budget.allows("a part that was never measured")
    assert not budget.allows("timeline", 30.0)


def test_no_arm_is_prepared_in_the_second_half_of_the_time(clock: list[float]) -> None:
    budget = Budget(60.0)
    clock[0] += 30.0
    assert budget.has_time_to_prepare()
    clock[0] += 1.0
    assert not budget.has_time_to_prepare()


def test_without_a_limit_there_is_always_time(clock: list[float]) -> None:
    budget = Budget(None)
    clock[0] += 1e6
    assert budget.has_time_to_prepare()
    assert budget.allows("repeat", 1e6)


def test_a_quick_plan_has_a_limit_and_keeps_a_shorter_one() -> None:
    assert Plan().quick().max_seconds == QUICK_SECONDS < 300
    assert replace(Plan(), max_seconds=60.0).quick().max_seconds == 60.0


def test_a_quick_plan_measures_the_arms_of_the_recommendation_before_other_servers() -> None:
    groups = [tuple(arm.name for arm in group) for group in in_groups(Plan().quick().all_arms)]
    assert groups.index(("fused:4", "residual:4")) < groups.index(("vllm:1",))
    assert groups[:3] == [("base",), ("single",), ("stack:4",)]
