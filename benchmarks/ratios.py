"""Medians, percentiles and ratios over rounds. Pure: numbers in, numbers out, randomness from a seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

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


def percentile(values: Sequence[float], q: float) -> float:
    """The value below which a share `q` in [0, 1] lies, linear between neighbours (numpy's default).

    Raises ValueError for no values or a `q` outside.
    """
    if not values or not 0 <= q <= 1:
        raise ValueError(f"percentile {q} of {len(values)} values")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def bootstrap_interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The percentile bootstrap's interval of the median (Efron 1979); the same for the same seed."""
    draw = random.Random(seed)
    medians = [median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    return percentile(medians, tail), percentile(medians, 1 - tail)


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
