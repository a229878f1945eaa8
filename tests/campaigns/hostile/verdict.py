"""Computes the victim's percentiles in quiet and hostile windows, and their ratios with intervals.

Each hostile window is paired with the quiet window before it. The bootstrap draws whole pairs, because the
requests of one window are not independent samples.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_compose.benchmarks.serving.results.document import RequestRow
from lora_compose.benchmarks.serving.results.metrics import samples
from lora_compose.benchmarks.statistics import CONFIDENCE

BOUND = 1.5
RESAMPLES = 500
MEASURED = ("ttft", "itl", "e2el")
QUANTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True)
class Pair:
    """The victim's rows of a quiet window and of the hostile window after it."""

    attack: str
    quotas: bool
    quiet: Sequence[dict[str, Any]]
    hostile: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Ratio:
    """One percentile in seconds in both kinds of windows, and their ratio with its interval."""

    metric: str
    quantile: str
    count: int
    quiet: float
    hostile: float
    ratio: float
    low: float
    high: float

    @property
    def is_kept(self) -> bool:
        """Whether the measured ratio is within the bound."""
        return self.ratio <= BOUND


def ratios(pairs: Sequence[Pair], seed: int) -> list[Ratio]:
    """One ratio for each metric and percentile that has samples in both kinds of windows."""
    found = []
    for metric in MEASURED:
        values = [(_samples(metric, pair.quiet), _samples(metric, pair.hostile)) for pair in pairs]
        if any(quiet for quiet, _ in values) and any(hostile for _, hostile in values):
            found += [_ratio(metric, name, values, seed) for name in QUANTILES]
    return found


def _samples(metric: str, rows: Sequence[dict[str, Any]]) -> list[float]:
    return samples(metric, [RequestRow.model_construct(**row) for row in rows])


def _ratio(
    metric: str, name: str, values: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int
) -> Ratio:
    draw, q = random.Random(seed), QUANTILES[name]
    drawn = [_pooled(draw.choices(values, k=len(values)), q) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    spread = [hostile / quiet for quiet, hostile in drawn if quiet and hostile]
    quiet, hostile = _pooled(values, q)
    count = sum(len(found) for _, found in values)
    ends = map(float, np.quantile(spread, [tail, 1 - tail]))
    return Ratio(metric, name, count, quiet, hostile, hostile / quiet, *ends)


def _pooled(values: Sequence[tuple[Sequence[float], Sequence[float]]], q: float) -> tuple[float, float]:
    quiet = [value for found, _ in values for value in found]
    hostile = [value for _, found in values for value in found]
    return _quantile(quiet, q), _quantile(hostile, q)


def _quantile(values: Sequence[float], q: float) -> float:
    return float(np.quantile(values, q)) if values else 0.0


def failures(pairs: Sequence[Pair]) -> dict[str, dict[str, int]]:
    """The victim's failed requests, by kind of window and reason."""
    windows = {"quiet": [pair.quiet for pair in pairs], "hostile": [pair.hostile for pair in pairs]}
    return {
        name: dict(
            Counter(row["failure"] for rows in windows_of for row in rows if row["failure"] is not None)
        )
        for name, windows_of in windows.items()
    }
