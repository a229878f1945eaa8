"""Medians, their bootstrap intervals, and ratios within rounds.

The functions are pure; seeds are arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, their range, and the confidence interval of the median."""

    count: int
    median: float
    minimum: float
    maximum: float
    low: float
    """Lower end of the bootstrap interval of the median."""
    high: float
    """Upper end of that interval."""


def bootstrap_interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """Interval of the median by the percentile bootstrap (Efron 1979).

    One seed always gives the same result.
    """
    from scipy.stats import bootstrap  # importing it takes half a second

    if len(values) == 1:
        return values[0], values[0]
    interval = bootstrap(
        (values,),
        np.median,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def spread(values: Sequence[float], seed: int) -> Spread | None:
    """The spread of `values`. None if `values` is empty."""
    if not values:
        return None
    return Spread(len(values), median(values), min(values), max(values), *bootstrap_interval(values, seed))


def ratios_by_round(arm: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """`arm / reference` of each round that has both, in the order of the rounds.

    A ratio within one round is not affected by drift between rounds, such as other load on the machine.
    A round whose reference is 0 gives no ratio.
    """
    shared = sorted(arm.keys() & reference.keys())
    return [arm[number] / reference[number] for number in shared if reference[number]]
