"""Whether two benchmarks of the same cells agree. The functions are pure and read the result's JSON only."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from lora_compose.benchmarks.statistics import Spread, spread

METRICS = ("ttft_ms", "tpot_ms", "e2el_ms", "output_throughput")
TOLERANCE = 0.05
NOISY = 0.5
"""Largest useful width of an interval, as a share of its median. If it is wider, an overlap shows little."""
HEADERS = ("model", "in flight", "metric", "ours", "vllm bench", "ours / theirs", "agree")


@dataclass(frozen=True)
class Verdict:
    """One metric of one cell, from both benchmarks: medians over repeats with 95 % intervals."""

    model: str
    concurrency: int
    metric: str
    ours: Spread
    theirs: Spread

    @property
    def ratio(self) -> float:
        """Our median divided by theirs."""
        return self.ours.median / self.theirs.median

    @property
    def word(self) -> str:
        """`yes`, `NO`, or `noise` if they agree only because one of the intervals is very wide."""
        widest = max((side.high - side.low) / side.median for side in (self.ours, self.theirs))
        noisy = widest > NOISY and abs(self.ratio - 1) > TOLERANCE
        return ("noise" if noisy else "yes") if self.agrees else "NO"

    @property
    def agrees(self) -> bool:
        """Whether the intervals overlap, or the medians differ by at most 5 %."""
        overlap = self.ours.low <= self.theirs.high and self.theirs.low <= self.ours.high
        return overlap or abs(self.ratio - 1) <= TOLERANCE

    def cells(self) -> tuple[str, ...]:
        """The values of one line of the table, in the order of HEADERS."""
        sides = (
            f"{side.median:.4g} ({side.low:.4g} to {side.high:.4g})" for side in (self.ours, self.theirs)
        )
        return (self.model, str(self.concurrency), self.metric, *sides, f"{self.ratio:.3f}", self.word)


def summarized(rows: Sequence[dict[str, float]], seconds: float) -> dict[str, float]:
    """Medians of our rows (`ttft` and `e2el` in seconds, `tokens`) under the names that vLLM reports."""
    tpots = [(row["e2el"] - row["ttft"]) / (row["tokens"] - 1) for row in rows]
    return {
        "ttft_ms": 1000 * median(row["ttft"] for row in rows),
        "tpot_ms": 1000 * median(tpots),
        "e2el_ms": 1000 * median(row["e2el"] for row in rows),
        "output_throughput": sum(row["tokens"] for row in rows) / seconds,
    }


def verdicts(document: dict[str, Any]) -> list[Verdict]:
    """One verdict for each cell and metric of a run.

    `document["passes"]` has one entry for each cell and repeat: model, concurrency, ours, theirs.
    """
    by_cell: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in document["passes"]:
        by_cell.setdefault((entry["model"], entry["concurrency"]), []).append(entry)
    found = []
    for (model, concurrency), passes in by_cell.items():
        for metric in METRICS:
            sides = [
                spread([entry[side][metric] for entry in passes], document["config"]["seed"])
                for side in ("ours", "theirs")
            ]
            assert sides[0] is not None
            assert sides[1] is not None
            found.append(Verdict(model, concurrency, metric, sides[0], sides[1]))
    return found


def pooled(document: dict[str, Any]) -> dict[str, Spread]:
    """For each metric, our value over theirs within each repeat, over all cells.

    These intervals are narrower than those of single cells.
    """
    found = {}
    for metric in METRICS:
        ratios = [entry["ours"][metric] / entry["theirs"][metric] for entry in document["passes"]]
        over = spread(ratios, document["config"]["seed"])
        assert over is not None
        found[metric] = over
    return found


def table(document: dict[str, Any]) -> Table:
    """The verdicts as a table for a terminal."""
    title = "The same cells, measured by lora-compose bench and by vllm.benchmarks.serve"
    shown = Table(title=title, title_justify="left")
    for header in HEADERS:
        shown.add_column(header)
    for verdict in verdicts(document):
        shown.add_row(*verdict.cells())
    return shown


def markdown(document: dict[str, Any]) -> str:
    """The verdicts as a Markdown table, and a line with the pooled ratios."""
    lines = [
        HEADERS,
        tuple("---" for _ in HEADERS),
        *(verdict.cells() for verdict in verdicts(document)),
    ]
    over = [
        f"{metric} {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        for metric, ratio in pooled(document).items()
    ]
    summary = f"Ours / theirs within each of {len(document['passes'])} repeats: {', '.join(over)}."
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{summary}"
