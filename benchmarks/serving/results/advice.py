"""Recommends a way to serve these adapters under this traffic, and says when the recommendation changes.

A run that is too noisy gives no recommendation (see `noise`).
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from lora_compose.benchmarks.serving.results.crossovers import (
    Crossover,
    busiest_cell,
    crossovers,
    largest_stack,
    seconds_saved,
)
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.noise import is_narrow, noise, percent
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Summary

Way = Literal["stack", "merge", "fuse"]
SAME = 0.99
"""A merge counts as lossless if at least this share of its answers equal the exact stack's."""


NOISY = "No recommendation: this run is too noisy to compare the ways to serve."
INSTEAD = (
    "What to do: end other programs, wait until the machine is idle, and run the benchmark again. If it is "
    "idle already, give it more time: `--requests 128 --repeats 10`, without --quick. In a virtual machine, "
    "use one with processors of its own."
)


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
    """A recommendation. The first line of `text` is one sentence; each line is a paragraph."""

    way: Way | None
    text: str
    noise: tuple[str, ...] = ()
    """Why there is no recommendation, although a stack was measured."""


def advise(
    document: BenchmarkResult, summary: Summary, traffic: ExpectedTraffic = ExpectedTraffic()
) -> Advice:
    """The recommendation from a result. `way` is None if no stack was measured in a closed loop, or if the
    run is too noisy."""
    cell = busiest_cell(summary)
    stack = largest_stack(summary)
    if cell is None or stack is None:
        return Advice(None, "No recommendation is possible, because no stack was measured in a closed loop.")
    reasons = noise(document, summary, cell, stack)
    if reasons:
        return Advice(None, "\n".join([NOISY, *reasons, INSTEAD]), tuple(reasons))
    if summary.failed:
        total = sum(arm.requests for arm in summary.all)
        lines = [
            f"Do not trust this run: {summary.failed} of {total} requests failed or were answered wrongly."
        ]
    else:
        lines = []
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
    if stack is None:
        return ""
    speed, ratio = stack.ratios["output_throughput"], stack.ratios.get("tpot")
    interval = f"95 % interval: {percent(speed.low)} to {percent(speed.high)}"
    text = f"The stack keeps {percent(speed.median)} of the base's speed ({interval}; {cell.id})."
    if ratio is None or not is_narrow(ratio):
        return text
    own = 1000 * stack.metrics["tpot"].median
    if ratio.low <= 1:
        return f"{text} A token takes {own:.2f} ms. This is not measurably more than with the base."
    return (
        f"{text} A token takes {own:.2f} ms. {own * (1 - 1 / ratio.median):.2f} ms of this is the cost of "
        f"stacking ({ratio.median:.2f} times the base's time, 95 % interval: {ratio.low:.2f} to "
        f"{ratio.high:.2f})."
    )


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
