"""A sweep for people: general score against domain score, the Pareto front, and the point to take."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from training.sweep import Point, pareto_front, recommended


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
