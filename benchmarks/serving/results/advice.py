"""Recommends a way to serve these adapters under this traffic, and says when the recommendation changes."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from lora_compose.benchmarks.serving.results.crossovers import (
    Crossover,
    busiest_cell,
    crossovers,
    seconds_saved,
)
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Summary

Way = Literal["stack", "merge", "fuse"]
SAME = 0.99
"""A merge counts as lossless if at least this share of its answers equal the exact stack's."""


@dataclass(frozen=True)
class ExpectedTraffic:
    """The traffic that is to be served."""

    share: float = 0.5
    """Share of all requests that the most-used composition gets."""
    requests: int = 10_000
    """Number of requests that this composition gets before its adapters or weights change."""
    accept_loss: bool = False
    """Whether answers may differ from the exact stack's."""


@dataclass(frozen=True)
class Advice:
    """A recommendation. Each line of `text` is a paragraph."""

    way: Way | None
    text: str


def advise(
    document: BenchmarkResult, summary: Summary, traffic: ExpectedTraffic = ExpectedTraffic()
) -> Advice:
    """The recommendation from a result. `way` is None if no stack was measured in a closed loop."""
    cell = busiest_cell(summary)
    stacks = [arm for arm in summary.arms if arm.startswith("stack:") and "@" not in arm]
    if cell is None or not stacks:
        return Advice(None, "No recommendation is possible, because no stack was measured in a closed loop.")
    if summary.failed:
        total = sum(arm.requests for arm in summary.all)
        lines = [
            f"Do not trust this run: {summary.failed} of {total} requests failed or were answered wrongly."
        ]
    else:
        lines = []
    stack = max(stacks, key=lambda arm: int(arm.partition(":")[2]))
    members = stack.partition(":")[2]
    points = {point.what: point for point in crossovers(document, summary)}
    merged, fused = f"merge:{members}", f"fused:{members}"
    way: Way = "stack"
    if _fuse_pays(points, fused, stack, traffic):
        way = "fuse"
    elif _merge_pays(document, points, merged, stack, traffic):
        way = "merge"
    lines.append(_verdict(way, members, traffic))
    lines.append(_cost_of_stack(summary.find(cell, stack), cell))
    if merged in summary.arms:
        lines.append(_about_merge(document, cell, merged, stack))
    lines += [point.sentence for point in points.values() if members in point.what]
    lines.append(_when_it_changes(way, points, fused))
    return Advice(way, "\n".join(line for line in lines if line))


def _fuse_pays(points: dict[str, Crossover], fused: str, stack: str, traffic: ExpectedTraffic) -> bool:
    once, share = points.get(f"{fused} against {stack}"), points.get(f"{fused} among others")
    if once is None or share is None or once.at is None or share.at is None:
        return False
    return traffic.requests > once.at and traffic.share > share.at


def _merge_pays(
    document: BenchmarkResult, points: dict[str, Crossover], merged: str, stack: str, traffic: ExpectedTraffic
) -> bool:
    once = points.get(f"{merged} against {stack}")
    same = _same_answers(document, merged)
    lossless = same is not None and same >= SAME
    return (
        once is not None
        and once.at is not None
        and traffic.requests > once.at
        and (lossless or traffic.accept_loss)
    )


def _same_answers(document: BenchmarkResult, arm: str) -> float | None:
    shares = [difference.same_answers for difference in document.differences if difference.arm == arm]
    return fmean(shares) if shares else None


def _verdict(way: Way, members: str, traffic: ExpectedTraffic) -> str:
    recommended = {
        "stack": "Recommended: stack the adapters in each request.",
        "fuse": "Recommended: fuse the composition into the base, and serve other requests as differences.",
        "merge": "Recommended: merge the adapters beforehand.",
    }[way]
    return (
        f"{recommended} This is for a composition of {members} adapters that gets "
        f"{100 * traffic.share:.0f} % of the requests, and {traffic.requests:,} requests before it changes."
    )


def _cost_of_stack(stack: ArmSummary | None, cell: Cell) -> str:
    if stack is None or "tpot" not in stack.ratios:
        return ""
    ratio, throughput = stack.ratios["tpot"], stack.ratios.get("output_throughput")
    own = stack.metrics["tpot"].median
    text = (
        f"With the stack, a token takes {1000 * own:.2f} ms. "
        f"{1000 * own * (1 - 1 / ratio.median):.2f} ms of this is the cost of stacking "
        f"({ratio.median:.2f} times the base's time, 95 % {ratio.low:.2f} to {ratio.high:.2f}; {cell.id})."
    )
    return text + (f" The throughput is {100 * throughput.median:.0f} % of the base's." if throughput else "")


def _about_merge(document: BenchmarkResult, cell: Cell, merged: str, stack: str) -> str:
    saved, same = seconds_saved(document, cell, stack, merged), _same_answers(document, merged)
    if saved is None or same is None:
        return ""
    off = max(difference.mean_abs_logprob for difference in document.differences if difference.arm == merged)
    gains = f"saves {1000 * saved.median:.2f} ms a request" if saved.low > 0 else "is not measurably faster"
    return (
        f"Merging ({document.plan.merge}) {gains}. It gives the exact stack's answer to {100 * same:.0f} % "
        f"of the prompts; the mean error of a token's log-probability is {off:.2g} nats."
    )


def _when_it_changes(way: Way, points: dict[str, Crossover], fused: str) -> str:
    share = points.get(f"{fused} among others")
    if share is None or share.at is None:
        return "No other way was measurably better, at any share of the requests." if way == "stack" else ""
    side = "Below" if way == "fuse" else "Above"
    other = "stacking" if way == "fuse" else "fusing"
    return f"{side} {100 * share.at:.0f} % of the requests, {other} is better."
