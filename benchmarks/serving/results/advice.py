"""Which way to serve these adapters under this traffic, in plain words, and where it would flip."""

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
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Findings

Way = Literal["stack", "merge", "fuse"]
SAME = 0.99
"""Share of answers a merge must have in common with the exact stack to count as lossless."""


@dataclass(frozen=True)
class ExpectedTraffic:
    """What is to be served."""

    share: float = 0.5
    """Of all requests, that the hottest composition gets."""
    requests: int = 10_000
    """That composition gets before its adapters or weights change."""
    accept_loss: bool = False
    """Whether answers may differ from the exact stack's."""


@dataclass(frozen=True)
class Advice:
    """`text` has a paragraph a line."""

    way: Way | None
    text: str


def advise(
    document: BenchmarkResult, found: Findings, traffic: ExpectedTraffic = ExpectedTraffic()
) -> Advice:
    """From what was measured; `way` is None where too little was."""
    cell = busiest_cell(found)
    stacks = [arm for arm in found.arms if arm.startswith("stack:") and "@" not in arm]
    if cell is None or not stacks:
        return Advice(None, "Nothing can be advised: no stack was measured in a closed loop.")
    if found.failed:
        total = sum(one.requests for one in found.all)
        lines = [
            f"Do not trust this run: {found.failed} of {total} requests failed or were answered wrongly."
        ]
    else:
        lines = []
    stack = max(stacks, key=lambda arm: int(arm.partition(":")[2]))
    members = stack.partition(":")[2]
    points = {one.what: one for one in crossovers(document, found)}
    merged, fused = f"merge:{members}", f"fused:{members}"
    way: Way = "stack"
    if _fuse_pays(points, fused, stack, traffic):
        way = "fuse"
    elif _merge_pays(document, points, merged, stack, traffic):
        way = "merge"
    lines.append(_verdict(way, members, traffic))
    lines.append(_cost_of_stack(found.of(cell, stack), cell))
    if merged in found.arms:
        lines.append(_about_merge(document, cell, merged, stack))
    lines += [one.sentence for one in points.values() if members in one.what]
    lines.append(_flip(way, points, fused))
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
    shares = [one.same_answers for one in document.differences if one.arm == arm]
    return fmean(shares) if shares else None


def _verdict(way: Way, members: str, traffic: ExpectedTraffic) -> str:
    given = (
        f"for a composition of {members} adapters that gets {100 * traffic.share:.0f} % of the requests, "
        f"{traffic.requests:,} of them before it changes"
    )
    return {
        "stack": f"Stack by request, {given}.",
        "fuse": f"Fuse it into the base, {given}, and let the others be served as differences.",
        "merge": f"Merge it beforehand, {given}.",
    }[way]


def _cost_of_stack(one: ArmSummary | None, cell: Cell) -> str:
    if one is None or "tpot" not in one.ratios:
        return ""
    ratio, tput = one.ratios["tpot"], one.ratios.get("output_throughput")
    own = one.quantities["tpot"].median
    text = (
        f"Stacking costs {1000 * own * (1 - 1 / ratio.median):.2f} ms on each token of {1000 * own:.2f} ms "
        f"({ratio.median:.2f} times the base's, 95 % {ratio.low:.2f} to {ratio.high:.2f}; {cell.id})"
    )
    return text + (f", and leaves {100 * tput.median:.0f} % of the base's throughput." if tput else ".")


def _about_merge(document: BenchmarkResult, cell: Cell, merged: str, stack: str) -> str:
    saved, same = seconds_saved(document, cell, stack, merged), _same_answers(document, merged)
    if saved is None or same is None:
        return ""
    off = max(one.mean_abs_logprob for one in document.differences if one.arm == merged)
    gains = f"saves {1000 * saved.median:.2f} ms a request" if saved.low > 0 else "is not measurably faster"
    return (
        f"Merging ({document.plan.merge}) {gains}, and answers {100 * same:.0f} % of the prompts as "
        f"the exact stack does; each token's log-probability is off by {off:.2g} nats in the mean."
    )


def _flip(way: Way, points: dict[str, Crossover], fused: str) -> str:
    share = points.get(f"{fused} among others")
    if share is None or share.at is None:
        return "Nothing measured here would turn this over." if way == "stack" else ""
    side = "below" if way == "fuse" else "above"
    other = "stacking" if way == "fuse" else "fusing"
    return f"It flips to {other} {side} a share of {100 * share.at:.0f} %."
