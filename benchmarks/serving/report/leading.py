"""The head of the report: one sentence, and one chart of what each way keeps of the base's speed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_compose.benchmarks.serving.report.words import arm_words, is_ours
from lora_compose.benchmarks.serving.results.advice import Advice
from lora_compose.benchmarks.serving.results.crossovers import busiest_cell, largest_stack
from lora_compose.benchmarks.serving.results.noise import is_narrow, percent
from lora_compose.benchmarks.serving.results.summary import BASE, ArmSummary, Summary

MOST = 1.6
"""The largest share of an interval that widens the chart. A longer interval ends at the edge."""


@dataclass(frozen=True)
class Bar:
    """One way to serve. Places are in percent of the width of the chart."""

    words: str
    arm: str
    kind: Literal["base", "ours", "other"]
    value: str
    interval: str
    width: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """The bars, and where the base's speed is, in percent of the width."""

    load: str
    bars: Sequence[Bar]
    full: float

    @property
    def has_others(self) -> bool:
        """Whether there is a way of another server."""
        return any(bar.kind == "other" for bar in self.bars)


def sentence(summary: Summary, advice: Advice) -> str:
    """The sentence that a reader should remember."""
    if advice.noise:
        return "This run gives no verdict, because it is too noisy."
    measured = _measured(summary)
    stack = next((arm for arm in measured if arm.arm == largest_stack(summary)), None)
    if stack is None:
        return advice.text.splitlines()[0]
    others = [arm for arm in measured if not is_ours(arm.arm) and is_narrow(arm.ratios["output_throughput"])]
    best = max(others, key=_share, default=None)
    words = f"A {arm_words(stack.arm)} keeps {percent(_share(stack))} of the base's speed"
    if best is None:
        return f"{words}."
    return f"{words}; the best of the other servers, {arm_words(best.arm)}, reaches {percent(_share(best))}."


def chart(summary: Summary) -> Chart | None:
    """The chart of the busiest closed loop. None if nothing was compared there."""
    measured = _measured(summary)
    if not measured:
        return None
    longest = max(arm.ratios["output_throughput"].high for arm in measured)
    most = max(1.0, min(MOST, longest), *map(_share, measured))
    base = Bar(arm_words(BASE), BASE, "base", "100 %", "", 100 / most, 100 / most, 100 / most)
    return Chart(measured[0].cell.id, [base, *(_bar(arm, most) for arm in measured)], 100 / most)


def _bar(arm: ArmSummary, most: float) -> Bar:
    ratio = arm.ratios["output_throughput"]
    width, low, high = (
        round(100 * min(value, most) / most, 2) for value in (ratio.median, ratio.low, ratio.high)
    )
    interval = f"{100 * ratio.low:.0f} to {percent(ratio.high)}" if ratio.count > 1 else ""
    kind: Literal["ours", "other"] = "ours" if is_ours(arm.arm) else "other"
    return Bar(arm_words(arm.arm), arm.arm, kind, percent(ratio.median), interval, width, low, high)


def _share(arm: ArmSummary) -> float:
    return arm.ratios["output_throughput"].median


def _measured(summary: Summary) -> list[ArmSummary]:
    """The arms of the busiest closed loop that have a ratio to the base, without those of the heat map."""
    cell = busiest_cell(summary)
    return [
        entry
        for entry in summary.all
        if entry.cell == cell and "@" not in entry.arm and "output_throughput" in entry.ratios
    ]
