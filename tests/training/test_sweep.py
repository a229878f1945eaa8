"""Sweeps: the front, the recommendation, and that no point is trained twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.sweep import (
    Point,
    SweepPlan,
    as_json,
    default_goal,
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


def test_only_a_forgetting_goal_needs_general_tasks(tmp_path: Path) -> None:
    file = written(tmp_path, max_steps=2, domain_tasks=HELD_OUT, score_limit=8, judge="chrf")
    plan = SweepPlan("sft", file, [], {"lora_r": ["2", "4"]})
    with pytest.raises(LoraComposeError, match="needs forgetting, which is not measured"):
        sweep(replace(plan, goal=GOAL), tmp_path / "out")
    points = sweep(plan, tmp_path / "out")
    assert default_goal(points) is None
    assert recommended(points, None) is max(points, key=lambda each: each.scores["domain"])
    assert {*points[0].intervals} == {"domain"}
    assert sweep_table(points, None).row_count == 2
    draw_sweep(points, None, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_lower_loss_is_the_better_point() -> None:
    def lossy(domain: float) -> Point:
        scores = {"domain": domain, "general": 0.9, "forgetting": 0.0}
        return Point({"lora_r": "2"}, scores, Path("x"), lower_is_better=frozenset({"domain"}))

    points = [lossy(1.5), lossy(0.5), lossy(1.0)]
    assert recommended(points, GOAL) is points[1]
    assert pareto_front(points) == [points[1]]


def test_a_goal_that_is_not_a_requirement_is_refused_before_training(tmp_path: Path) -> None:
    file = written(tmp_path, domain_tasks=HELD_OUT)
    for goal, reason in (("forgetting", "is not a requirement"), ("accuracy>=1", "needs accuracy")):
        with pytest.raises(LoraComposeError, match=reason):
            sweep(SweepPlan("sft", file, [], {"lora_r": ["2"]}, goal), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sweep_prints_only_json_on_stdout(tmp_path: Path) -> None:
    file = written(tmp_path, max_steps=2, domain_tasks=HELD_OUT, score_limit=8, disable_tqdm=False)
    command = ["train", "sweep", str(file), "--ranks", "2", "--output", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(create_app(), command)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["points"]
    assert found["recommended"]
    assert "domain" in found["intervals"]


def test_a_sweep_without_tasks_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="needs domain_tasks"):
        sweep(SweepPlan("sft", written(tmp_path), [], {"lora_r": ["2"]}), tmp_path / "out")
