"""A sweep: one recipe trained with several data ratios, ranks and learning rates, and the report on the runs.

Each point is a separate run. Its directory is named by a digest of its settings, so that an interrupted sweep
can continue and no point is trained twice. The report shows the recommended point. With general tasks, it
also shows the general score against the domain score, and the Pareto front.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Self

from rich.table import Table

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.intervals import Interval, with_interval
from lora_compose.training.evaluation.requirements import parse_requirements, unmet
from lora_compose.training.recipe import Recipe, read_recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.run import FinishedRun, train
from lora_compose.training.run_record import FinishedRecord, RunSettings, read_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORGETTING_GOAL: Final = "forgetting<=0.02"

Settings = Mapping[str, str]
"""Options of one point, as text of the command line."""


@dataclass(frozen=True)
class Point:
    """One trained point. `scores` has domain, and with general tasks general and forgetting."""

    settings: Settings
    scores: Mapping[str, float]
    directory: Path
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """The 95 % intervals of the scores."""
    lower_is_better: frozenset[str] = frozenset()
    """The names of the scores that are losses."""
    base_general: float | None = None
    """The base's general score."""

    @classmethod
    def of(cls, settings: Settings, run: FinishedRun) -> Self:
        """The point of a finished run."""
        record = run.record
        lower = frozenset(record.lower_is_better)
        base = record.base_scores.get("general")
        return cls(settings, run.scores, run.directory, record.intervals, lower, base)

    def merit(self, name: str) -> float:
        """A score with its sign changed if it is a loss, so that higher is better. 0 without it."""
        value = self.scores.get(name, 0.0)
        return -value if name in self.lower_is_better else value


def grid(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of the axes' values. Without axes there is one point."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep trains: a recipe with options, once for each combination of the axes' values."""

    method: Method
    file: Path
    options: Sequence[str]
    axes: Mapping[str, Sequence[str]]
    goal: str | None = None
    """A requirement on the scores, such as "forgetting<=0.02", that the recommended point must meet."""


def sweep(plan: SweepPlan, output: Path, on_progress: Callable[[str], None] = lambda _: None) -> list[Point]:
    """Train the points that are not trained yet.

    Raises LoraComposeError("invalid_recipe") before the first point is trained, for example if the goal needs
    tasks that the recipe does not have.
    """
    settings = grid(plan.axes)
    recipes = [_recipe(plan, output, values) for values in settings]
    for recipe in recipes:
        _check_tasks(recipe, plan.goal)
    points = []
    for number, (values, recipe) in enumerate(zip(settings, recipes, strict=True), 1):
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        on_progress(f"{number} of {len(settings)}: {shown}")
        points.append(Point.of(values, _run(recipe)))
    return points


def default_goal(points: Sequence[Point]) -> str | None:
    """The goal of a sweep that names none: little forgetting, if that was measured."""
    return FORGETTING_GOAL if "forgetting" in points[0].scores else None


def _check_tasks(recipe: Recipe, goal: str | None) -> None:
    """Check that every score that the report and the goal need is measured."""
    if not recipe.score.domain_tasks:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE, "A sweep needs domain_tasks in the recipe.", "recipe"
        )
    measured = {"domain"} | ({"general", "forgetting"} if recipe.score.general_tasks else set())
    named = {requirement.score for requirement in parse_requirements(goal)} if goal else set()
    missing = ", ".join(sorted(named - measured))
    if missing:
        hint = " Add general_tasks to the recipe." if named & {"general", "forgetting"} else ""
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE,
            f"The goal {goal} needs {missing}, which is not measured.{hint}",
            "goal",
        )


def _recipe(plan: SweepPlan, output: Path, settings: Settings) -> Recipe:
    own = [text for name, value in settings.items() for text in (f"--{name}", value)]
    options = [*plan.options, *own]
    text = json.dumps(
        RunSettings.of(read_recipe(plan.method, plan.file, options)).model_dump(), sort_keys=True
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    place = str(output / "points" / digest[:12])
    return read_recipe(plan.method, plan.file, [*options, "--output_dir", place])


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
    return sorted(front, key=lambda point: -point.merit("domain"))


def _beats(a: Point, b: Point) -> bool:
    pairs = [(a.merit(name), b.merit(name)) for name in ("domain", "general")]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def recommended(points: Sequence[Point], goal: str | None) -> Point | None:
    """The point with the best domain score among the points that meet the goal, or None.

    A goal is, for example, "forgetting<=0.02". Without a goal, every point meets it.
    """
    requirements = parse_requirements(goal) if goal else ()
    meeting = [point for point in points if not unmet(requirements, point.scores)]
    return max(meeting, key=lambda p: (p.merit("domain"), p.merit("general")), default=None)


def as_json(points: Sequence[Point], goal: str | None) -> dict[str, Any]:
    """The report as JSON values."""
    front, best = pareto_front(points), recommended(points, goal)
    return {
        "goal": goal,
        "points": [
            {
                "settings": dict(p.settings),
                "scores": dict(p.scores),
                "intervals": {name: list(ends) for name, ends in p.intervals.items()},
                "pareto": p in front,
                "recommended": p is best,
                "run": p.directory.name,
            }
            for p in points
        ],
    }


def sweep_table(points: Sequence[Point], goal: str | None) -> Table:
    """One row for each point. Each score has its 95 % interval."""
    front, best = pareto_front(points), recommended(points, goal)
    names = [name for name in ("domain", "general", "forgetting") if name in points[0].scores]
    table = Table(*points[0].settings, *names, "", box=None, pad_edge=False)
    for point in points:
        held = (("Pareto", point in front and len(names) > 1), (_best_with(goal), point is best))
        marks = [mark for mark, holds in held if holds]
        scores = [with_interval(point.scores[name], point.intervals.get(name)) for name in names]
        table.add_row(
            *point.settings.values(), *scores, ", ".join(marks), style="bold" if point is best else None
        )
    if best is None:
        table.caption = f"No point meets {goal}."
    return table


def _best_with(goal: str | None) -> str:
    return f"best with {goal}" if goal else "best"


def draw_sweep(points: Sequence[Point], goal: str | None, file: Path) -> None:
    """General score against domain score, as a PNG. Without general tasks, the domain score by point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    front, best = pareto_front(points), recommended(points, goal)
    where = dict(zip(map(id, points), _places(points), strict=True))
    base_general = points[0].base_general
    has_general = base_general is not None
    if base_general is not None:
        axes.axhline(base_general, color="gray", linestyle=":", label="base, general")
        axes.plot(
            *zip(*(where[id(p)] for p in front), strict=True),
            color="tab:blue",
            alpha=0.5,
            label="Pareto front",
        )
    axes.scatter(*zip(*where.values(), strict=True), color="tab:blue", zorder=3)
    if best is not None:
        x, y = where[id(best)]
        axes.scatter([x], [y], s=180, facecolors="none", edgecolors="tab:red", label=_best_with(goal))
    _name_points(axes, points, where)
    labels = ("domain score", "general score") if has_general else ("point", "domain score")
    what = " and ".join(points[0].settings).replace("ratio", "ratio general:domain")
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"Scores of runs that differ in: {what}")
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)


def _name_points(axes: "Axes", points: Sequence[Point], where: Mapping[int, tuple[float, float]]) -> None:
    """Write the settings beside the points. Points that nearly coincide share one text."""
    groups: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        x, y = where[id(point)]
        groups.setdefault((round(10 * x), round(20 * y)), []).append(point)
    middle = fmean(axes.get_xlim())
    for near in groups.values():
        x, y = where[id(near[0])]
        is_right = x > middle
        axes.annotate(
            ", ".join(" ".join(point.settings.values()) for point in near),
            (x, y),
            textcoords="offset points",
            xytext=(-9 if is_right else 9, -14),
            ha="right" if is_right else "left",
            fontsize=8,
        )


def _places(points: Sequence[Point]) -> list[tuple[float, float]]:
    if points[0].base_general is None:
        return [(number, point.scores["domain"]) for number, point in enumerate(points, 1)]
    return [(point.scores["domain"], point.scores["general"]) for point in points]
