"""The same recipe at several mixes, ranks and learning rates: what each teaches, and what it forgets.

Each point is a run of its own in a directory named after what makes it, so a sweep that was interrupted goes
on and a point is never trained twice.

A sweep for people: general score against domain score, the Pareto front, and the point to take.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.requirements import parse_requirements, unmet
from lora_compose.training.recipe import Method, Recipe, read_recipe
from lora_compose.training.run import FinishedRun, train
from lora_compose.training.run_record import FinishedRecord, RunSettings, read_record

Settings = Mapping[str, str]
"""Options of one point, as the command line gives them."""


@dataclass(frozen=True)
class Point:
    """One trained point. `scores` has domain, general and forgetting."""

    settings: Settings
    scores: Mapping[str, float]
    directory: Path

    @property
    def base_general(self) -> float:
        """The base's general score."""
        return self.scores["general"] + self.scores["forgetting"]


def grid(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of the axes' values; no axis is one point."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def sweep(
    method: Method,
    file: Path,
    options: Sequence[str],
    axes: Mapping[str, Sequence[str]],
    output: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Train what is missing. Raises LoraComposeError("invalid_recipe") before the first point is trained."""
    settings = grid(axes)
    recipes = [_recipe(method, file, options, output, each) for each in settings]
    for recipe in recipes:
        if not recipe.score.domain_tasks or not recipe.score.general_tasks:
            raise LoraComposeError(
                CommandCode.INVALID_RECIPE, "A sweep needs domain_tasks and general_tasks.", "recipe"
            )
    points = []
    for number, (each, recipe) in enumerate(zip(settings, recipes, strict=True), 1):
        tell(f"{number} of {len(settings)}: {', '.join(f'{n} {v}' for n, v in each.items())}")
        points.append(Point(each, _run(recipe).scores, recipe.output))
    return points


def _recipe(method: Method, file: Path, options: Sequence[str], output: Path, settings: Settings) -> Recipe:
    own = [text for name, value in settings.items() for text in (f"--{name}", value)]
    settled = read_recipe(method, file, [*options, *own])
    text = json.dumps(RunSettings.of(settled).model_dump(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return read_recipe(method, file, [*options, *own, "--output_dir", str(output / "points" / digest[:12])])


def _run(recipe: Recipe) -> FinishedRun:
    record = read_record(recipe.output)
    if isinstance(record, FinishedRecord):
        return FinishedRun(recipe.output, record)
    return train(recipe, resume=record is not None)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Those no other point beats in domain or general without losing in the other; best domain first."""
    front = [point for point in points if not any(_beats(other, point) for other in points)]
    return sorted(front, key=lambda point: -point.scores["domain"])


def _beats(a: Point, b: Point) -> bool:
    pairs = [(a.scores[name], b.scores[name]) for name in ("domain", "general")]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def recommended(points: Sequence[Point], goal: str) -> Point | None:
    """The best domain score among those that meet the goal, such as "forgetting<=0.02"; None: none does."""
    requirements = parse_requirements(goal)
    meeting = [point for point in points if not unmet(requirements, point.scores)]
    return max(meeting, key=lambda p: (p.scores["domain"], p.scores["general"]), default=None)


def as_json(points: Sequence[Point], goal: str) -> dict[str, Any]:
    """All of it, for machines."""
    front, best = pareto_front(points), recommended(points, goal)
    return {
        "goal": goal,
        "points": [
            {
                "settings": dict(p.settings),
                "scores": dict(p.scores),
                "pareto": p in front,
                "recommended": p is best,
                "run": p.directory.name,
            }
            for p in points
        ],
    }


def sweep_table(points: Sequence[Point], goal: str) -> Table:
    """One line a point."""
    front, best = pareto_front(points), recommended(points, goal)
    names = list(points[0].settings)
    table = Table(*names, "domain", "general", "forgetting", "", box=None, pad_edge=False)
    for point in points:
        marks = [
            mark
            for mark, holds in (("Pareto", point in front), (f"best with {goal}", point is best))
            if holds
        ]
        scores = [f"{point.scores[name]:.3f}" for name in ("domain", "general", "forgetting")]
        table.add_row(
            *point.settings.values(), *scores, ", ".join(marks), style="bold" if point is best else None
        )
    if best is None:
        table.caption = f"No point meets {goal}."
    return table


def draw_sweep(points: Sequence[Point], goal: str, file: Path) -> None:
    """General score against domain score, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(points[0].base_general, color="gray", linestyle=":", label="base, general")
    front, best = pareto_front(points), recommended(points, goal)
    axes.plot(*_xy(front), color="tab:blue", alpha=0.5, label="Pareto front")
    axes.scatter(*_xy(points), color="tab:blue", zorder=3)
    if best is not None:
        axes.scatter(*_xy([best]), s=180, facecolors="none", edgecolors="tab:red", label=f"best with {goal}")
    for point in points:
        at = (point.scores["domain"], point.scores["general"])
        axes.annotate(
            " ".join(point.settings.values()), at, textcoords="offset points", xytext=(6, -9), fontsize=8
        )
    axes.set(xlabel="domain score", ylabel="general score", title=" × ".join(points[0].settings))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.scores["domain"] for p in points], [p.scores["general"] for p in points]
