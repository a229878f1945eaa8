"""Summarizes a result: statistics, ratios and flags of each arm in each cell.

The summary depends on the result only, so one file always gives the same summary.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lora_compose.benchmarks.serving.results.document import BenchmarkResult, Pass
from lora_compose.benchmarks.serving.results.metrics import (
    METRICS,
    MetricStats,
    is_good,
    metric_stats,
    samples,
)
from lora_compose.benchmarks.serving.results.plan import Cell, objectives
from lora_compose.benchmarks.serving.results.stalls import Stall, stalls
from lora_compose.benchmarks.statistics import Spread, ratios_by_round, spread

BASE = "base"
LAGS = 0.010
"""Seconds. The load generator was too slow if the 99th percentile of sent minus due is above this."""
KEPT_UP = 0.9
"""An open loop is over-saturated if the server answers less than this share of the offered rate."""
GROWING = 2.0
"""A queue is growing if the last third of the requests waits more than this many times the first third."""


@dataclass(frozen=True)
class ArmSummary:
    """One arm in one cell, over all repeats."""

    cell: Cell
    arm: str
    requests: int
    failures: Mapping[str, int]
    """Failed requests by reason."""
    metrics: Mapping[str, MetricStats]
    """`ttft`, `tpot`, `itl` and `e2el` in seconds, over all requests that did not fail."""
    request_throughput: Spread | None
    """Requests a second. All spreads are over repeats."""
    output_throughput: Spread | None
    """Tokens a second."""
    goodput: Spread | None
    """Requests a second that met every objective."""
    ratios: Mapping[str, Spread]
    """Ratios to the base in the same repeat: `output_throughput`, and medians of the four metrics."""
    stalls: tuple[Stall, ...]
    lag: float
    """99th percentile of sent minus due, in seconds."""
    flags: tuple[str, ...]
    """Reasons not to trust these numbers, as text."""

    @property
    def failed(self) -> int:
        """Number of requests that were refused, cut off or answered wrongly."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Summary:
    """The summaries of all arms in all cells, in the order of measuring."""

    all: tuple[ArmSummary, ...]

    def find(self, cell: Cell, arm: str) -> ArmSummary | None:
        """The summary of `arm` in `cell`. None if it was not measured."""
        return next((entry for entry in self.all if (entry.cell, entry.arm) == (cell, arm)), None)

    @property
    def cells(self) -> list[Cell]:
        """All cells, without repetition."""
        return list(dict.fromkeys(entry.cell for entry in self.all))

    @property
    def arms(self) -> list[str]:
        """All arms, without repetition."""
        return list(dict.fromkeys(entry.arm for entry in self.all))

    @property
    def failed(self) -> int:
        """Number of failed requests in the whole result."""
        return sum(entry.failed for entry in self.all)


def summarize(document: BenchmarkResult) -> Summary:
    """The summary of a result."""
    by_cell: dict[Cell, dict[str, list[Pass]]] = {}
    for run in document.passes:
        by_cell.setdefault(run.cell, {}).setdefault(run.arm, []).append(run)
    entries = [
        _arm_summary(document, cell, arm, passes, arms.get(BASE, []))
        for cell, arms in by_cell.items()
        for arm, passes in arms.items()
    ]
    return Summary(tuple(entries))


def _arm_summary(
    document: BenchmarkResult, cell: Cell, arm: str, passes: Sequence[Pass], base: Sequence[Pass]
) -> ArmSummary:
    plan, rows = document.plan, [row for run in passes for row in run.rows]
    limits, seed = objectives(plan.goodput), plan.seed
    failures = Counter(row.failure for row in rows if row.failure is not None)
    metrics = {metric: metric_stats(samples(metric, rows)) for metric in METRICS}
    lag = float(np.quantile([row.sent - row.due for row in rows], 0.99))
    standstills = tuple(stall for run in passes for stall in stalls(run.rows))

    def over_repeats(value: Callable[[Pass], float]) -> Spread | None:
        return spread([value(run) for run in passes], seed)

    return ArmSummary(
        cell=cell,
        arm=arm,
        requests=len(rows),
        failures=dict(failures),
        metrics={metric: stats for metric, stats in metrics.items() if stats is not None},
        request_throughput=over_repeats(requests_a_second),
        output_throughput=over_repeats(tokens_a_second),
        goodput=over_repeats(lambda run: sum(is_good(row, limits) for row in run.rows) / run.seconds),
        ratios={} if arm == BASE else ratios(passes, base, seed),
        stalls=standstills,
        lag=lag,
        flags=tuple(_flags(cell, passes, failures, standstills, lag)),
    )


def requests_a_second(run: Pass) -> float:
    """Right answers a second."""
    return sum(row.failure is None for row in run.rows) / run.seconds


def tokens_a_second(run: Pass) -> float:
    """Tokens of right answers a second."""
    return sum(row.tokens for row in run.rows if row.failure is None) / run.seconds


def ratios(passes: Sequence[Pass], base: Sequence[Pass], seed: int) -> dict[str, Spread]:
    """Arm over base within each repeat.

    A repeat with a failed request, in the arm or the base, is left out.
    """
    found = {"output_throughput": _ratio(passes, base, tokens_a_second, seed)}
    for metric in METRICS:
        mine, theirs = (_measured(group, metric) for group in (passes, base))
        found[metric] = _ratio(mine, theirs, _typical(metric), seed)
    return {name: value for name, value in found.items() if value is not None}


def _measured(passes: Sequence[Pass], metric: str) -> list[Pass]:
    """Passes with any sample of `metric`. An answer that came in one chunk has no gaps between its tokens."""
    return [run for run in passes if samples(metric, run.rows)]


def _typical(metric: str) -> Callable[[Pass], float]:
    return lambda run: median(samples(metric, run.rows))


def _ratio(
    passes: Sequence[Pass], base: Sequence[Pass], value: Callable[[Pass], float], seed: int
) -> Spread | None:
    mine, theirs = (
        {run.repeat: value(run) for run in group if all(row.failure is None for row in run.rows)}
        for group in (passes, base)
    )
    return spread(ratios_by_round(mine, theirs), seed)


def _flags(
    cell: Cell, passes: Sequence[Pass], failures: Mapping[str, int], standstills: Sequence[Stall], lag: float
) -> list[str]:
    flags = []
    total = sum(len(run.rows) for run in passes)
    for reason, count in sorted(failures.items()):
        flags.append(f"{count} of {total} requests failed: {reason.replace('_', ' ')}")
    saturated = sum(is_saturated(run) for run in passes) if cell.loop == "open" else 0
    if 2 * saturated >= len(passes):
        flags.append(
            f"over-saturated in {saturated} of {len(passes)} repeats: requests arrived faster than the "
            "server answered them"
        )
    if standstills:
        longest = max(stall.seconds for stall in standstills)
        flags.append(f"{len(standstills)} standstill(s), the longest {1000 * longest:.0f} ms")
    if cell.loop == "open" and lag > LAGS:
        flags.append(
            f"the load generator was late: it sent 1 % of the requests more than {1000 * lag:.0f} ms after "
            "they were due"
        )
    return flags


def is_saturated(run: Pass) -> bool:
    """Whether the server of an open loop fell behind: its rate was too low, or the waiting times kept
    growing.

    The requests in flight at the end also take time, so the time of a typical answer is subtracted.
    """
    rows = [row for row in run.rows if row.times]
    if len(rows) < 6:
        return False
    span = max(row.due for row in rows) - min(row.due for row in rows)
    third = len(rows) // 3
    first, last = ([row.ended - row.due for row in part] for part in (rows[:third], rows[-third:]))
    behind = span / max(run.seconds - min(row.due for row in rows) - median(first), 1e-9) < KEPT_UP
    return behind or median(last) > GROWING * median(first)
