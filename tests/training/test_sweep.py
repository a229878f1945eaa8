"""Sweeps: the front, the recommendation, and that no point is trained twice."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.sweep import (
    Point,
    SweepPlan,
    as_json,
    draw_sweep,
    grid,
    pareto_front,
    recommended,
    sweep,
    sweep_table,
)
from tests.training.recipes import HELD_OUT, TASKS, written

SCORE = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
GOAL = "forgetting<=0.02"


def point(domain: float, general: float) -> Point:
    return Point(
        {"ratio": "2:8"}, {"domain": domain, "general": general, "forgetting": 1 - general}, Path("x")
    )


@given(st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=8))
def test_every_point_off_the_front_is_dominated_by_one_on_it(scores: list[tuple[float, float]]) -> None:
    points = [point(*each) for each in scores]
    front = pareto_front(points)
    for each in points:
        better = [
            other
            for other in front
            if all(other.scores[name] >= each.scores[name] for name in ("domain", "general"))
        ]
        assert better
        assert (each in front) == all(other.scores == each.scores for other in better)


def test_the_best_domain_score_that_meets_the_goal_is_recommended() -> None:
    points = [point(1.0, 0.5), point(0.9, 0.99), point(0.8, 1.0)]
    assert recommended(points, GOAL) is points[1]
    assert recommended(points[:1], GOAL) is None


def test_a_grid_is_every_combination() -> None:
    assert grid({"ratio": ["0:1", "2:8"], "lora_r": ["4"]}) == [
        {"ratio": "0:1", "lora_r": "4"},
        {"ratio": "2:8", "lora_r": "4"},
    ]


def test_a_sweep_goes_on_where_it_was_and_trains_no_point_twice(tmp_path: Path) -> None:
    file = written(tmp_path, max_steps=2, general=HELD_OUT, ratio="5:5", **TASKS)
    lines: list[str] = []
    first = sweep(SweepPlan("sft", file, [], {"ratio": ["0:1"]}), tmp_path / "out", lines.append)
    stamp = (first[0].directory / "run.json").stat().st_mtime_ns
    points = sweep(SweepPlan("sft", file, [], {"ratio": ["0:1", "5:5"]}), tmp_path / "out", lines.append)
    assert points[0] == first[0]
    assert (points[0].directory / "run.json").stat().st_mtime_ns == stamp
    assert points[0].directory != points[1].directory
    found = as_json(points, GOAL)
    assert any(each["pareto"] for each in found["points"])
    assert sweep_table(points, GOAL).row_count == 2
    draw_sweep(points, GOAL, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_without_tasks_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="needs domain_tasks"):
        sweep(SweepPlan("sft", written(tmp_path), [], {"lora_r": ["2"]}), tmp_path / "out")
