"""Computes when another way to serve pays off: its one-time cost divided by its saving per request.

A saving is a difference of the serving time of a request, `1 / request_throughput`, in the closed loop with
the most requests in flight. The machine is busy there, so saved time is additional capacity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import Summary, requests_a_second
from lora_compose.benchmarks.statistics import Spread, spread


@dataclass(frozen=True)
class Crossover:
    """The point at which a way to serve pays off:

    `at` requests, or a share of them. None: there is no such point.
    """

    what: str
    at: float | None
    sentence: str


def busiest_cell(summary: Summary) -> Cell | None:
    """The closed loop with the most requests in flight."""
    closed = [cell for cell in summary.cells if cell.loop == "closed" and not cell.is_heat_map]
    return max(closed, key=lambda cell: cell.concurrency or 0, default=None)


def largest_stack(summary: Summary) -> str | None:
    """The measured stack with the most adapters. None if none was measured."""
    stacks = [arm for arm in summary.arms if arm.startswith("stack:") and "@" not in arm]
    return max(stacks, key=lambda arm: int(arm.partition(":")[2]), default=None)


def seconds_saved(document: BenchmarkResult, cell: Cell, slower: str, faster: str) -> Spread | None:
    """Serving time that `faster` saves per request, compared with `slower`; over repeats."""
    per_repeat = {arm: _seconds_a_request(document, cell, arm) for arm in (slower, faster)}
    shared = per_repeat[slower].keys() & per_repeat[faster].keys()
    return spread([per_repeat[slower][r] - per_repeat[faster][r] for r in sorted(shared)], document.plan.seed)


def _seconds_a_request(document: BenchmarkResult, cell: Cell, arm: str) -> dict[int, float]:
    passes = [run for run in document.passes if (run.cell, run.arm) == (cell, arm)]
    return {run.repeat: 1 / rate for run in passes if (rate := requests_a_second(run)) > 0}


def crossovers(document: BenchmarkResult, summary: Summary) -> list[Crossover]:
    """All crossovers that the measured arms allow to compute."""
    cell = busiest_cell(summary)
    if cell is None:
        return []
    points: list[Crossover | None] = []
    for arm in summary.arms:
        kind, _, members = arm.partition(":")
        stack = f"stack:{members}" if members != "1" else "single"
        if kind == "merge" and stack in summary.arms:
            points.append(_merge(document, cell, arm, stack))
        if kind == "fused" and stack in summary.arms:
            points.append(_fuse(document, cell, arm, stack))
            points.append(_share(document, cell, (arm, stack, f"residual:{members}")))
    return [point for point in points if point is not None]


def _merge(document: BenchmarkResult, cell: Cell, arm: str, stack: str) -> Crossover | None:
    builds = [use.first_use_ttft - use.warm_ttft for use in document.cold if use.arm == arm]
    return (
        _pays_off(f"{arm} against {stack}", median(builds), seconds_saved(document, cell, stack, arm))
        if builds
        else None
    )


def _fuse(document: BenchmarkResult, cell: Cell, arm: str, stack: str) -> Crossover | None:
    cost = switch_seconds(document)
    if not cost:
        return None
    return _pays_off(f"{arm} against {stack}", cost, seconds_saved(document, cell, stack, arm))


def switch_seconds(document: BenchmarkResult) -> float | None:
    """Seconds of a fuse and a restore together. None if one of them was not measured."""
    by_kind: Mapping[str, Sequence[float]] = {
        what: [switch.seconds for switch in document.switches if switch.what == what]
        for what in ("fuse", "restore")
    }
    return sum(map(median, by_kind.values())) if all(by_kind.values()) else None


def _pays_off(what: str, once: float, saved: Spread | None) -> Crossover | None:
    if saved is None:
        return None
    if saved.low <= 0:
        return Crossover(
            what,
            None,
            f"{what}: no saving was measured ({_ms(saved.median)} a request, 95 % {_ms(saved.low)} to "
            f"{_ms(saved.high)}), so the one-time cost of {once:.2f} s does not pay off.",
        )
    at = once / saved.median
    return Crossover(
        what,
        at,
        f"{what}: the one-time cost is {once:.2f} s and each request saves {_ms(saved.median)}, "
        f"so it pays off after {at:.0f} requests (95 % {once / saved.high:.0f} to {once / saved.low:.0f}).",
    )


def _share(document: BenchmarkResult, cell: Cell, arms: tuple[str, str, str]) -> Crossover | None:
    """The share of the requests above which fusing pays off.

    Fusing saves `gain` per request for the fused composition and costs `cost` per other request, because
    others are served as differences. The break-even share is cost / (cost + gain).
    """
    fused, stack, residual = arms
    gain = seconds_saved(document, cell, stack, fused)
    cost = seconds_saved(document, cell, residual, "base")
    if gain is None or cost is None:
        return None
    what = f"{fused} among others"
    if gain.low <= 0:
        return Crossover(
            what, None, f"{what}: no saving from fusing was measured, so it does not pay off at any share."
        )
    share = max(0.0, cost.median) / (max(0.0, cost.median) + gain.median)
    most = int(1 / share) if share > 0 else None
    others = (
        f"If the traffic is spread evenly over more than {most} composition(s), fusing does not pay off"
        if most
        else "Other requests are not slower"
    )
    return Crossover(
        what,
        share,
        f"{what}: fusing pays off if the fused composition gets more than {100 * share:.0f} % of the "
        f"requests. Its requests take {_ms(gain.median)} less, and those for the base {_ms(cost.median)} "
        f"more. {others}.",
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
