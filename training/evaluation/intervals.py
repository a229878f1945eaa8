"""95 % intervals of shares and means, and of the change between two models that answered the same questions.

A share has Wilson's interval, and the difference of two paired shares Newcombe's. Other means have a
bootstrap. The mean over several tasks has the interval of MOVER, from the tasks' own intervals.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any, Final

Interval = tuple[float, float]
Z: Final = 1.96
RESAMPLES: Final = 2000


def normal_interval(values: Sequence[float], z: float = Z) -> Interval:
    """The normal interval of a mean, from the spread of its values.

    With one value, both ends are the mean.
    """
    half = z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return fmean(values) - half, fmean(values) + half


def wilson(right: float, count: int, z: float = Z) -> Interval:
    """The Wilson score interval of a share. Source: E. B. Wilson, 1927, doi:10.2307/2276774.

    The normal interval would leave [0, 1], and would be empty for shares of 0 and 1.
    """
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """The interval of the share of `after` minus that of `before`, over the same questions.

    Method 10 of R. G. Newcombe, Statistics in Medicine 17, 1998, pages 2635 to 2650.
    """
    count = len(before)
    first, second = sum(after) / count, sum(before) / count
    (low1, high1), (low2, high2) = wilson(sum(after), count), wilson(sum(before), count)
    phi = _correlation(before, after)

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = first - second
    return difference - half(first - low1, high2 - second), difference + half(high1 - first, second - low2)


def _correlation(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Newcombe's φ, with his continuity correction."""
    pairs = list(zip(after, before, strict=True))
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    size = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if size == 0:
        return 0.0
    product = both * neither - gained * lost
    corrected = max(product - len(pairs) / 2, 0.0) if product > 0 else product
    return corrected / math.sqrt(size)


def bootstrap(statistic: Callable[[Any], float], count: int) -> Interval:
    """The percentile bootstrap of a statistic of `count` rows.

    The statistic gets the positions of a resample, an array of `count` integers.

    The resamples are always the same, so that a result can be repeated.
    """
    import numpy as np

    draw = np.random.default_rng(0)
    found = [statistic(draw.integers(0, count, count)) for _ in range(RESAMPLES if count > 1 else 1)]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def mean_interval(means: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent estimates, each with its own interval.

    MOVER: Zou and Donner, 2008, doi:10.1002/sim.3095.
    """
    middle, count = fmean(means), len(means)
    below = math.hypot(*(mean - low for mean, (low, _) in zip(means, intervals, strict=True)))
    above = math.hypot(*(high - mean for mean, (_, high) in zip(means, intervals, strict=True)))
    return middle - below / count, middle + above / count


def with_interval(value: float, interval: Interval | None) -> str:
    """A score for a table, with its interval: `0.950 (0.880..0.981)`."""
    return shown(value) + ("" if interval is None else f" ({shown_ends(interval)})")


def shown_ends(interval: Interval) -> str:
    """An interval for a table: `0.880..0.981`."""
    return f"{shown(interval[0])}..{shown(interval[1])}"


def shown(value: float) -> str:
    """A score with three decimals. There is no negative zero."""
    return f"{round(value, 3) + 0.0:.3f}"
