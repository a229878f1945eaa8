"""From when on another way to serve has paid for itself: what it costs once, over what it saves each time.

Savings are differences of serving time a request, `1 / request_throughput`, in the closed loop with most in
flight: there the machine is busy, and time saved is capacity won.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import Findings, requests_a_second
from lora_compose.benchmarks.statistics import Spread, spread


@dataclass(frozen=True)
class Crossover:
    """`at` requests, or a share of them; None where there is no such point. `sentence` says it in words."""

    what: str
    at: float | None
    sentence: str


def busiest_cell(found: Findings) -> Cell | None:
    """The closed loop with most in flight."""
    closed = [cell for cell in found.cells if cell.loop == "closed" and not cell.is_heat_map]
    return max(closed, key=lambda cell: cell.concurrency or 0, default=None)


def seconds_saved(document: BenchmarkResult, cell: Cell, slower: str, faster: str) -> Spread | None:
    """Serving time of a request that `faster` saves against `slower`; over repeats."""
    per_repeat = {arm: _seconds_a_request(document, cell, arm) for arm in (slower, faster)}
    shared = per_repeat[slower].keys() & per_repeat[faster].keys()
    return spread([per_repeat[slower][r] - per_repeat[faster][r] for r in sorted(shared)], document.plan.seed)


def _seconds_a_request(document: BenchmarkResult, cell: Cell, arm: str) -> dict[int, float]:
    passes = [one for one in document.passes if (one.cell, one.arm) == (cell, arm)]
    return {one.repeat: 1 / rate for one in passes if (rate := requests_a_second(one)) > 0}


def crossovers(document: BenchmarkResult, found: Findings) -> list[Crossover]:
    """Those that can be told from what was measured."""
    cell = busiest_cell(found)
    if cell is None:
        return []
    told: list[Crossover | None] = []
    for arm in found.arms:
        kind, _, members = arm.partition(":")
        stack = f"stack:{members}" if members != "1" else "single"
        if kind == "merge" and stack in found.arms:
            told.append(_merge(document, cell, arm, stack))
        if kind == "fused" and stack in found.arms:
            told.append(_fuse(document, cell, arm, stack))
            told.append(_share(document, cell, (arm, stack, f"residual:{members}")))
    return [one for one in told if one is not None]


def _merge(document: BenchmarkResult, cell: Cell, arm: str, stack: str) -> Crossover | None:
    builds = [one.first_use_ttft - one.warm_ttft for one in document.cold if one.arm == arm]
    return (
        _paid(f"{arm} against {stack}", median(builds), seconds_saved(document, cell, stack, arm))
        if builds
        else None
    )


def _fuse(document: BenchmarkResult, cell: Cell, arm: str, stack: str) -> Crossover | None:
    cost = switch_seconds(document)
    return _paid(f"{arm} against {stack}", cost, seconds_saved(document, cell, stack, arm)) if cost else None


def switch_seconds(document: BenchmarkResult) -> float | None:
    """A fuse and a restore."""
    by_kind: Mapping[str, Sequence[float]] = {
        what: [one.seconds for one in document.switches if one.what == what] for what in ("fuse", "restore")
    }
    return sum(map(median, by_kind.values())) if all(by_kind.values()) else None


def _paid(what: str, once: float, each: Spread | None) -> Crossover | None:
    if each is None:
        return None
    if each.low <= 0:
        return Crossover(
            what,
            None,
            f"{what}: no saving could be measured ({_ms(each.median)} a request, 95 % {_ms(each.low)} to "
            f"{_ms(each.high)}), so what it costs once ({once:.2f} s) is not won back.",
        )
    at = once / each.median
    return Crossover(
        what,
        at,
        f"{what}: costs {once:.2f} s once and saves {_ms(each.median)} a request: it has paid for itself "
        f"after {at:.0f} requests (95 % {once / each.high:.0f} to {once / each.low:.0f}).",
    )


def _share(document: BenchmarkResult, cell: Cell, arms: tuple[str, str, str]) -> Crossover | None:
    """Others pay for what is fused, being served as differences. Break-even: c / (c + g) of the requests."""
    fused, stack, residual = arms
    gain = seconds_saved(document, cell, stack, fused)
    cost = seconds_saved(document, cell, residual, "base")
    if gain is None or cost is None:
        return None
    what = f"{fused} among others"
    if gain.low <= 0:
        return Crossover(what, None, f"{what}: fusing saves nothing that could be measured, at any share.")
    share = max(0.0, cost.median) / (max(0.0, cost.median) + gain.median)
    most = int(1 / share) if share > 0 else None
    hot = (
        f"fusing stops paying beyond {most} equally hot compositions"
        if most
        else "the others lose nothing by it"
    )
    return Crossover(
        what,
        share,
        f"{what}: pays while it has more than {100 * share:.0f} % of the requests (the base's own then take "
        f"{_ms(cost.median)} longer, its own {_ms(gain.median)} less); {hot}.",
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
