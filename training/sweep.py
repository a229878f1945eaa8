"""A sweep: one recipe trained with several data ratios, ranks and learning rates, and the report on the runs.

Each point is a separate run. Its directory is named by a digest of its settings, so that an interrupted sweep
can continue and no point is trained twice. The report shows the general score against the domain score, the
Pareto front, and the recommended point.
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
from lora_compose.training.recipe import Recipe, read_recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.run import FinishedRun, train
from lora_compose.training.run_record import FinishedRecord, RunSettings, read_record

Settings = Mapping[str, str]
"""Options of one point, as text of the command line."""


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
    """Every combination of the axes' values. Without axes there is one point."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def sweep(
    method: Method,
    file: Path,
    options: Sequence[str],
    axes: Mapping[str, Sequence[str]],
    output: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Train the points that are not trained yet.

    Raises LoraComposeError("invalid_recipe") before the first point is trained.
    """
    settings = grid(axes)
    recipes = [_recipe(method, file, options, output, values) for values in settings]
    for recipe in recipes:
        if not recipe.score.domain_tasks or not recipe.score.general_tasks:
            raise LoraComposeError(
                CommandCode.INVALID_RECIPE,
                "A sweep needs domain_tasks and general_tasks in the recipe.",
                "recipe",
            )
    points = []
    for number, (values, recipe) in enumerate(zip(settings, recipes, strict=True), 1):
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        on_progress(f"{number} of {len(settings)}: {shown}")
        points.append(Point(values, _run(recipe).scores, recipe.output))
    return points


def _recipe(method: Method, file: Path, options: Sequence[str], output: Path, settings: Settings) -> Recipe:
    own = [text for name, value in settings.items() for text in (f"--{name}", value)]
    recipe = read_recipe(method, file, [*options, *own])
    text = json.dumps(RunSettings.of(recipe).model_dump(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return read_recipe(method, file, [*options, *own, "--output_dir", str(output / "points" / digest[:12])])


def _run(recipe: Recipe) -> FinishedRun:
    record = read_record(recipe.output)
    if isinstance(record, FinishedRecord):
        return FinishedRun(recipe.output, record)
    return train(recipe, resume=record is not None)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other point dominates, best domain score first.

    A point dominates another if its domain and general scores are at least as high and one is higher.
    """
    front = [point for point in points if not any(_beats(other, point) for other in points)]
    return sorted(front, key=lambda point: -point.scores["domain"])


def _beats(a: Point, b: Point) -> bool:
    pairs = [(a.scores[name], b.scores[name]) for name in ("domain", "general")]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def recommended(points: Sequence[Point], goal: str) -> Point | None:
    """The point with the best domain score among the points that meet the goal, or None.

    A goal is, for example, "forgetting<=0.02".
    """
    requirements = parse_requirements(goal)
    meeting = [point for point in points if not unmet(requirements, point.scores)]
    return max(meeting, key=lambda p: (p.scores["domain"], p.scores["general"]), default=None)


def as_json(points: Sequence[Point], goal: str) -> dict[str, Any]:
    """The report as JSON values."""
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
    """One row for each point."""
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
