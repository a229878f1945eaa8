"""Compares two results of the same plan, and finds changes that are larger than the noise.

Each arm is compared by its ratio to the base within a repeat, so a busier machine does not count as a change.
The test is Welch's t-test on the log ratios, with Holm's correction over all of them. A change that is
smaller than the least effect is ignored, even if it is significant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.benchmarks.serving.results.document import BenchmarkResult, Pass
from lora_compose.benchmarks.serving.results.metrics import samples
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import BASE, summarize, tokens_a_second

SURE = 0.05
LEAST_EFFECT = 0.05
COMPARED = ("output_throughput", "ttft", "tpot")
MATTERS = (
    "requests",
    "prompt_tokens",
    "output_tokens",
    "compositions",
    "skew",
    "burstiness",
    "merge",
    "seed",
)


@dataclass(frozen=True)
class Change:
    """One number of one arm in one cell: `ratio` is the second result's over the first's."""

    cell: Cell
    arm: str
    metric: str
    ratio: float
    p: float
    """After Holm's correction."""
    changed: bool


@dataclass(frozen=True)
class Comparison:
    """All compared numbers. `failures` are arms that failed more often in the second result."""

    changes: tuple[Change, ...]
    failures: tuple[str, ...]
    base: float | None
    """Output throughput of the base, second over first. It shows the effect of the machine and the build."""

    @property
    def is_changed(self) -> bool:
        """Whether a number changed or a new failure appeared."""
        return bool(self.failures) or any(change.changed for change in self.changes)


def compare(first: BenchmarkResult, second: BenchmarkResult, least: float = LEAST_EFFECT) -> Comparison:
    """Compare two results. Raises InvalidRequest("not_comparable") if their workloads differ."""
    different = {
        key: f"{key} {mine!r} and {theirs!r}"
        for key in MATTERS
        if (mine := getattr(first.plan, key)) != (theirs := getattr(second.plan, key))
    }
    if different or first.base != second.base:
        named = ", ".join(different.values())
        raise InvalidRequest(
            CommandCode.NOT_COMPARABLE,
            f"The results cannot be compared, because they differ in: {named or 'the base'}.",
            "result",
        )
    tested = []
    for key, mine in _log_ratios(first).items():
        theirs = _log_ratios(second).get(key)
        if theirs and len(mine) > 1 and len(theirs) > 1:
            tested.append((key, math.exp(median(theirs) - median(mine)), _welch(mine, theirs)))
    adjusted = holm([p for _, _, p in tested])
    changes = [
        Change(*key, ratio, p, p < SURE and abs(math.log(ratio)) > math.log1p(least))
        for (key, ratio, _), p in zip(tested, adjusted, strict=True)
    ]
    return Comparison(tuple(changes), tuple(_new_failures(first, second)), _base(first, second))


def _log_ratios(document: BenchmarkResult) -> dict[tuple[Cell, str, str], list[float]]:
    """Logarithms of each arm's numbers divided by the base's numbers in the same repeat."""
    values: dict[tuple[Cell, str], dict[int, dict[str, float]]] = {}
    for run in document.passes:
        if all(row.failure is None for row in run.rows):
            values.setdefault((run.cell, run.arm), {})[run.repeat] = _typical(run)
    logarithms: dict[tuple[Cell, str, str], list[float]] = {}
    for (cell, arm), repeats in values.items():
        base = values.get((cell, BASE), {})
        for metric in COMPARED if arm != BASE else ():
            shared = [
                r for r in sorted(repeats.keys() & base.keys()) if metric in repeats[r] and metric in base[r]
            ]
            logarithms[cell, arm, metric] = [math.log(repeats[r][metric] / base[r][metric]) for r in shared]
    return logarithms


def _typical(run: Pass) -> dict[str, float]:
    """The numbers of a pass. There is no `tpot` if every answer came in one chunk."""
    measured = {metric: samples(metric, run.rows) for metric in ("ttft", "tpot")}
    medians = {metric: median(values) for metric, values in measured.items() if values}
    return {"output_throughput": tokens_a_second(run), **medians}


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import ttest_ind

    p = float(ttest_ind(first, second, equal_var=False).pvalue)
    return 1.0 if math.isnan(p) else p


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for several tests, so that the chance of any false result is that of one (S.

    Holm, 1979).
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def _new_failures(first: BenchmarkResult, second: BenchmarkResult) -> list[str]:
    before = {(arm.cell, arm.arm): arm.failed / arm.requests for arm in summarize(first).all}
    return [
        f"{arm.cell.id}, {arm.arm}: {arm.failed} of {arm.requests} requests failed"
        for arm in summarize(second).all
        if arm.failed / arm.requests > before.get((arm.cell, arm.arm), 0.0)
    ]


def _base(first: BenchmarkResult, second: BenchmarkResult) -> float | None:
    values = [
        [
            tokens_a_second(run)
            for run in document.passes
            if run.arm == BASE and run.cell.loop == "closed" and not run.cell.is_heat_map
        ]
        for document in (first, second)
    ]
    return median(values[1]) / median(values[0]) if all(values) else None


def comparison_table(comparison: Comparison) -> Table:
    """The changes as a table, or the five numbers with the smallest p if nothing changed."""
    table = Table("cell", "arm", "ratio to base of", "second/first", "p", "", box=None, pad_edge=False)
    changed = [change for change in comparison.changes if change.changed]
    for change in changed or sorted(comparison.changes, key=lambda change: change.p)[:5]:
        verdict = "[red]changed[/]" if change.changed else "noise"
        values = (
            change.cell.id,
            change.arm,
            change.metric,
            f"{change.ratio:.3f}",
            f"{change.p:.3g}",
            verdict,
        )
        table.add_row(*values)
    base = (
        ""
        if comparison.base is None
        else f"; the base's throughput was {comparison.base:.2f} times that of the first run"
    )
    table.caption = f"{len(comparison.changes)} numbers compared; p after Holm's correction{base}"
    table.caption_justify = "left"
    return table
