"""Medians, their intervals, and ratios over rounds. Pure: numbers in, numbers out, randomness from a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """The middle of repeated measurements, how far they lie apart, and how sure the middle is."""

    count: int
    median: float
    minimum: float
    maximum: float
    low: float
    """Lower end of the bootstrap interval of the median."""
    high: float
    """Upper end of it."""


def bootstrap_interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The percentile bootstrap's interval of the median (Efron 1979); the same for the same seed."""
    from scipy.stats import bootstrap  # half a second

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
    """The spread of `values`; None where there are none."""
    if not values:
        return None
    return Spread(len(values), median(values), min(values), max(values), *bootstrap_interval(values, seed))


def ratios_by_round(arm: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """`arm / reference` of each round that has both, in the order of rounds.

    Comparing inside a round takes out what drifts between rounds: other load on the machine, clocks.
    A round whose reference is 0 has no ratio.
    """
    shared = sorted(arm.keys() & reference.keys())
    return [arm[number] / reference[number] for number in shared if reference[number]]
