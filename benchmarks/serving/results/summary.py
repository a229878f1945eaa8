"""What a result's JSON says, found from it alone: the same file always gives the same findings."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lora_compose.benchmarks.serving.results.document import BenchmarkResult, Pass
from lora_compose.benchmarks.serving.results.metrics import METRICS, Quantity, is_good, quantity, samples
from lora_compose.benchmarks.serving.results.plan import Cell, objectives
from lora_compose.benchmarks.serving.results.stalls import Stall, stalls
from lora_compose.benchmarks.statistics import Spread, ratios_by_round, spread

BASE = "base"
LAGS = 0.010
"""Seconds between due and sent, at the 99th percentile, from which the generator itself was too slow."""
KEPT_UP = 0.9
"""Share of the offered rate below which an open loop's cell is over-saturated."""
GROWING = 2.0
"""The last third's waiting over the first third's, from which a queue was growing."""


@dataclass(frozen=True)
class ArmSummary:
    """One arm in one cell, over all repeats."""

    cell: Cell
    arm: str
    requests: int
    failures: Mapping[str, int]
    """Failed requests by reason."""
    quantities: Mapping[str, Quantity]
    """`ttft`, `tpot`, `itl`, `e2el`, in seconds, over all requests that did not fail."""
    request_throughput: Spread | None
    """Requests a second; over repeats, as all spreads are."""
    output_throughput: Spread | None
    """Tokens a second."""
    goodput: Spread | None
    """Requests a second that met every objective."""
    ratios: Mapping[str, Spread]
    """To the base in the same repeat: medians of `ttft`, `tpot`, `itl`, `e2el`, and `output_throughput`."""
    stalls: tuple[Stall, ...]
    lag: float
    """99th percentile of sent after due, seconds."""
    flags: tuple[str, ...]
    """What makes these numbers doubtful, in words."""

    @property
    def failed(self) -> int:
        """Requests that were refused, broke off or answered wrongly."""
        return sum(self.failures.values())


@dataclass(frozen=True)
class Findings:
    """In the order they were measured in."""

    all: tuple[ArmSummary, ...]

    def of(self, cell: Cell, arm: str) -> ArmSummary | None:
        """One of them."""
        return next((one for one in self.all if (one.cell, one.arm) == (cell, arm)), None)

    @property
    def cells(self) -> list[Cell]:
        """Each once."""
        return list(dict.fromkeys(one.cell for one in self.all))

    @property
    def arms(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(one.arm for one in self.all))

    @property
    def failed(self) -> int:
        """Of all requests."""
        return sum(one.failed for one in self.all)


def findings(document: BenchmarkResult) -> Findings:
    """One finding for each arm in each cell."""
    by_cell: dict[Cell, dict[str, list[Pass]]] = {}
    for one in document.passes:
        by_cell.setdefault(one.cell, {}).setdefault(one.arm, []).append(one)
    found = [
        _finding(document, cell, arm, passes, arms.get(BASE, []))
        for cell, arms in by_cell.items()
        for arm, passes in arms.items()
    ]
    return Findings(tuple(found))


def _finding(
    document: BenchmarkResult, cell: Cell, arm: str, passes: Sequence[Pass], base: Sequence[Pass]
) -> ArmSummary:
    plan, rows = document.plan, [row for one in passes for row in one.rows]
    limits, seed = objectives(plan.goodput), plan.seed
    failures = Counter(row.failure for row in rows if row.failure is not None)
    quantities = {metric: quantity(samples(metric, rows)) for metric in METRICS}
    lag = float(np.quantile([row.sent - row.due for row in rows], 0.99))
    stood = tuple(stall for one in passes for stall in stalls(one.rows))

    def over_repeats(value: Callable[[Pass], float]) -> Spread | None:
        return spread([value(one) for one in passes], seed)

    return ArmSummary(
        cell=cell,
        arm=arm,
        requests=len(rows),
        failures=dict(failures),
        quantities={metric: found for metric, found in quantities.items() if found is not None},
        request_throughput=over_repeats(requests_a_second),
        output_throughput=over_repeats(tokens_a_second),
        goodput=over_repeats(lambda one: sum(is_good(row, limits) for row in one.rows) / one.seconds),
        ratios={} if arm == BASE else ratios(passes, base, seed),
        stalls=stood,
        lag=lag,
        flags=tuple(_flags(cell, passes, failures, stood, lag)),
    )


def requests_a_second(one: Pass) -> float:
    """Answered, and rightly."""
    return sum(row.failure is None for row in one.rows) / one.seconds


def tokens_a_second(one: Pass) -> float:
    """Of the answers that count."""
    return sum(row.tokens for row in one.rows if row.failure is None) / one.seconds


def ratios(passes: Sequence[Pass], base: Sequence[Pass], seed: int) -> dict[str, Spread]:
    """Arm over base within each repeat; a repeat in which either lost a request is left out, not patched."""
    found = {"output_throughput": _ratio(passes, base, tokens_a_second, seed)}
    for metric in METRICS:
        mine, theirs = (_measured(group, metric) for group in (passes, base))
        found[metric] = _ratio(mine, theirs, _typical(metric), seed)
    return {name: value for name, value in found.items() if value is not None}


def _measured(passes: Sequence[Pass], metric: str) -> list[Pass]:
    """Those with any sample: answers whose tokens all came in one chunk have no gaps between them."""
    return [one for one in passes if samples(metric, one.rows)]


def _typical(metric: str) -> Callable[[Pass], float]:
    return lambda one: median(samples(metric, one.rows))


def _ratio(
    passes: Sequence[Pass], base: Sequence[Pass], value: Callable[[Pass], float], seed: int
) -> Spread | None:
    mine, theirs = (
        {one.repeat: value(one) for one in group if all(row.failure is None for row in one.rows)}
        for group in (passes, base)
    )
    return spread(ratios_by_round(mine, theirs), seed)


def _flags(
    cell: Cell, passes: Sequence[Pass], failures: Mapping[str, int], stood: Sequence[Stall], lag: float
) -> list[str]:
    flags = []
    total = sum(len(one.rows) for one in passes)
    for reason, count in sorted(failures.items()):
        flags.append(f"{count} of {total} requests failed: {reason.replace('_', ' ')}")
    saturated = sum(is_saturated(one) for one in passes) if cell.loop == "open" else 0
    if 2 * saturated >= len(passes):
        flags.append(f"over-saturated in {saturated} of {len(passes)} repeats: more came than was answered")
    if stood:
        longest = max(stall.seconds for stall in stood)
        flags.append(f"{len(stood)} standstill(s), the longest {1000 * longest:.0f} ms")
    if cell.loop == "open" and lag > LAGS:
        flags.append(f"the generator was late: 1 % of the requests by more than {1000 * lag:.0f} ms")
    return flags


def is_saturated(one: Pass) -> bool:
    """Whether an open loop's server fell behind: it answered slower than asked, or waits kept growing.

    Draining what is in flight at the end is no sign of it, so a typical answer's time is taken off."""
    rows = [row for row in one.rows if row.times]
    if len(rows) < 6:
        return False
    span = max(row.due for row in rows) - min(row.due for row in rows)
    third = len(rows) // 3
    first, last = ([row.ended - row.due for row in part] for part in (rows[:third], rows[-third:]))
    behind = span / max(one.seconds - min(row.due for row in rows) - median(first), 1e-9) < KEPT_UP
    return behind or median(last) > GROWING * median(first)
