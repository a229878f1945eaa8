"""Whether two benchmarks that measured the same say the same. Pure, made from JSON only."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from lora_compose.benchmarks.statistics import Spread, spread

METRICS = ("ttft_ms", "tpot_ms", "e2el_ms", "output_throughput")
TOLERANCE = 0.05
NOISY = 0.5
"""Of an interval's width to its median: beyond it, that two intervals meet says little."""
HEADERS = ("model", "in flight", "metric", "ours", "vllm bench", "ours / theirs", "agree")


@dataclass(frozen=True)
class Verdict:
    """One metric of one cell: medians over repeats with 95 % intervals."""

    model: str
    concurrency: int
    metric: str
    ours: Spread
    theirs: Spread

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.ours.median / self.theirs.median

    @property
    def word(self) -> str:
        """`yes`, `NO`, or `noise` where they agree only because either is known so badly."""
        widest = max((one.high - one.low) / one.median for one in (self.ours, self.theirs))
        noisy = widest > NOISY and abs(self.ratio - 1) > TOLERANCE
        return ("noise" if noisy else "yes") if self.agrees else "NO"

    @property
    def agrees(self) -> bool:
        """Within noise: the intervals meet, or the medians differ by no more than 5 %."""
        meet = self.ours.low <= self.theirs.high and self.theirs.low <= self.ours.high
        return meet or abs(self.ratio - 1) <= TOLERANCE

    def cells(self) -> tuple[str, ...]:
        """One line of the table, under HEADERS."""
        sides = (f"{one.median:.4g} ({one.low:.4g} to {one.high:.4g})" for one in (self.ours, self.theirs))
        return (self.model, str(self.concurrency), self.metric, *sides, f"{self.ratio:.3f}", self.word)


def summarized(rows: Sequence[dict[str, float]], seconds: float) -> dict[str, float]:
    """Our rows (`ttft`, `e2el` in seconds, `tokens`) as the medians that vLLM reports, under its names."""
    tpots = [(row["e2el"] - row["ttft"]) / (row["tokens"] - 1) for row in rows]
    return {
        "ttft_ms": 1000 * median(row["ttft"] for row in rows),
        "tpot_ms": 1000 * median(tpots),
        "e2el_ms": 1000 * median(row["e2el"] for row in rows),
        "output_throughput": sum(row["tokens"] for row in rows) / seconds,
    }


def verdicts(document: dict[str, Any]) -> list[Verdict]:
    """Of a run's `passes`, one of each cell for each repeat: model, concurrency, ours, theirs."""
    by_cell: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in document["passes"]:
        by_cell.setdefault((one["model"], one["concurrency"]), []).append(one)
    found = []
    for (model, concurrency), passes in by_cell.items():
        for metric in METRICS:
            sides = [
                spread([one[side][metric] for one in passes], document["config"]["seed"])
                for side in ("ours", "theirs")
            ]
            assert sides[0] is not None
            assert sides[1] is not None
            found.append(Verdict(model, concurrency, metric, sides[0], sides[1]))
    return found


def pooled(document: dict[str, Any]) -> dict[str, Spread]:
    """By metric, ours over theirs within each repeat of each cell: sharper than any one cell's medians."""
    found = {}
    for metric in METRICS:
        ratios = [one["ours"][metric] / one["theirs"][metric] for one in document["passes"]]
        over = spread(ratios, document["config"]["seed"])
        assert over is not None
        found[metric] = over
    return found


def table(document: dict[str, Any]) -> Table:
    """For a terminal."""
    made = Table(title="the same cells by us and by vllm.benchmarks.serve", title_justify="left")
    for header in HEADERS:
        made.add_column(header)
    for one in verdicts(document):
        made.add_row(*one.cells())
    return made


def markdown(document: dict[str, Any]) -> str:
    """For a page."""
    lines = [HEADERS, tuple("---" for _ in HEADERS), *(one.cells() for one in verdicts(document))]
    over = [
        f"{metric} {one.median:.3f} ({one.low:.3f} to {one.high:.3f})"
        for metric, one in pooled(document).items()
    ]
    summary = f"Ours / theirs within each of {len(document['passes'])} repeats: {', '.join(over)}."
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{summary}"
