"""Two results of the same plan: what changed beyond noise.

Arms are compared by their ratio to the base within a repeat, so that a machine that was busier on one day is
no change. Welch's t-test on log ratios, Holm's correction over all of them, and a least effect below which a
difference is nobody's concern even where it is sure.

A comparison for people.
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
from lora_compose.benchmarks.serving.results.summary import BASE, findings, tokens_a_second

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
    """`changes` has all that was compared; `failures` what failed in the second and not in the first."""

    changes: tuple[Change, ...]
    failures: tuple[str, ...]
    base: float | None
    """Output throughput of the base, second over first: the machine and the build together."""

    @property
    def is_changed(self) -> bool:
        """Whether anything moved."""
        return bool(self.failures) or any(one.changed for one in self.changes)


def compare(first: BenchmarkResult, second: BenchmarkResult, least: float = LEAST_EFFECT) -> Comparison:
    """Raises InvalidRequest("not_comparable") for results of different workloads."""
    different = {
        key: f"{key} {mine!r} and {theirs!r}"
        for key in MATTERS
        if (mine := getattr(first.plan, key)) != (theirs := getattr(second.plan, key))
    }
    if different or first.base != second.base:
        named = ", ".join(different.values())
        raise InvalidRequest(CommandCode.NOT_COMPARABLE, f"Two workloads: {named or 'two bases'}", "result")
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
    """Of every arm's number to the base's in the same repeat."""
    values: dict[tuple[Cell, str], dict[int, dict[str, float]]] = {}
    for one in document.passes:
        if all(row.failure is None for row in one.rows):
            values.setdefault((one.cell, one.arm), {})[one.repeat] = _typical(one)
    found: dict[tuple[Cell, str, str], list[float]] = {}
    for (cell, arm), repeats in values.items():
        base = values.get((cell, BASE), {})
        for metric in COMPARED if arm != BASE else ():
            shared = [
                r for r in sorted(repeats.keys() & base.keys()) if metric in repeats[r] and metric in base[r]
            ]
            found[cell, arm, metric] = [math.log(repeats[r][metric] / base[r][metric]) for r in shared]
    return found


def _typical(one: Pass) -> dict[str, float]:
    """A pass's numbers; where all answers came in one chunk, none for the time between tokens."""
    measured = {metric: samples(metric, one.rows) for metric in ("ttft", "tpot")}
    found = {metric: median(values) for metric, values in measured.items() if values}
    return {"output_throughput": tokens_a_second(one), **found}


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import ttest_ind

    p = float(ttest_ind(first, second, equal_var=False).pvalue)
    return 1.0 if math.isnan(p) else p


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, so corrected that all together err as one would. S. Holm, 1979."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def _new_failures(first: BenchmarkResult, second: BenchmarkResult) -> list[str]:
    before = {(one.cell, one.arm): one.failed / one.requests for one in findings(first).all}
    return [
        f"{one.cell.id}, {one.arm}: {one.failed} of {one.requests} requests failed"
        for one in findings(second).all
        if one.failed / one.requests > before.get((one.cell, one.arm), 0.0)
    ]


def _base(first: BenchmarkResult, second: BenchmarkResult) -> float | None:
    values = [
        [
            tokens_a_second(one)
            for one in document.passes
            if one.arm == BASE and one.cell.loop == "closed" and not one.cell.is_heat_map
        ]
        for document in (first, second)
    ]
    return median(values[1]) / median(values[0]) if all(values) else None


def comparison_table(found: Comparison) -> Table:
    """What moved, or else the five largest differences that are noise."""
    table = Table("cell", "arm", "ratio to base of", "second/first", "p", "", box=None, pad_edge=False)
    moved = [one for one in found.changes if one.changed]
    for one in moved or sorted(found.changes, key=lambda each: each.p)[:5]:
        verdict = "[red]changed[/]" if one.changed else "noise"
        table.add_row(one.cell.id, one.arm, one.metric, f"{one.ratio:.3f}", f"{one.p:.3g}", verdict)
    base = (
        "" if found.base is None else f"; the base itself ran at {found.base:.2f} of the first run's tokens/s"
    )
    table.caption = f"{len(found.changes)} numbers compared, p after Holm's correction{base}"
    table.caption_justify = "left"
    return table
