"""Metrics over requests, with vLLM's names. A percentile is given only if enough samples lie above it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from lora_compose.benchmarks.serving.results.document import RequestRow

BEYOND = 5
"""Samples that must lie above a percentile: 50 for p90, 500 for p99."""
METRICS = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True)
class MetricStats:
    """Statistics of `count` samples, in seconds. `p90` and `p99` are None if there are too few samples."""

    count: int
    mean: float
    median: float
    p90: float | None
    p99: float | None
    maximum: float


def metric_stats(values: Sequence[float]) -> MetricStats | None:
    """Statistics of `values`. None if `values` is empty."""
    if not values:
        return None
    p90, p99 = (_tail(values, q) for q in (0.9, 0.99))
    return MetricStats(len(values), fmean(values), median(values), p90, p99, max(values))


def _tail(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if round(len(values) * (1 - q), 6) >= BEYOND else None


def ttft(row: RequestRow) -> float:
    """Time to first token, from when the request was due.

    It includes the time before the request was sent.
    """
    return row.times[0] - row.due


def e2el(row: RequestRow) -> float:
    """End-to-end latency, from when the request was due to the end of the answer."""
    return row.ended - row.due


def tpot(row: RequestRow) -> float:
    """Time per output token after the first."""
    return (row.times[-1] - row.times[0]) / (row.tokens - 1)


def itl(row: RequestRow) -> list[float]:
    """Inter-token latencies: each gap between two chunks."""
    return [after - before for before, after in pairwise(row.times)]


def samples(metric: str, rows: Sequence[RequestRow]) -> list[float]:
    """The samples of `metric` over the requests that did not fail."""
    good = [row for row in rows if row.failure is None and row.times]
    if metric == "itl":
        return [gap for row in good for gap in itl(row)]
    if metric == "tpot":  # an answer in one chunk does not show the time between its tokens
        return [tpot(row) for row in good if len(row.times) > 1]
    return [{"ttft": ttft, "e2el": e2el}[metric](row) for row in good]


def is_good(row: RequestRow, objectives: dict[str, float]) -> bool:
    """Whether a request met every objective. Objectives are in seconds."""
    if row.failure is not None or not row.times:
        return False
    of = {"ttft": ttft, "tpot": tpot, "e2el": e2el}
    return all(of[metric](row) <= limit for metric, limit in objectives.items())
