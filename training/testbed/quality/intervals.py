"""Means over cells with intervals from a bootstrap over training seeds and answers.

The mixtures are all that there are, so they are not drawn again. The answers of a cell are drawn as a
binomial with its share, and the seeds with replacement. With one seed, an interval covers the choice of the
held-out rows only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lora_compose.training.testbed.subject import Cell

DRAWS: Final = 2000
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f}–{self.high:.2f})"


def interval(seeds: Sequence[Sequence[Cell]], share: Callable[[Cell], float]) -> Interval:
    """The mean of `share` over the cells of every seed. `seeds` has the cells of the same mixtures for each
    seed, shape (seeds, mixtures).
    """
    shares = np.array([[share(cell) for cell in cells] for cells in seeds])
    counts = np.array([[int(cell["n"]) for cell in cells] for cells in seeds])
    generator = np.random.default_rng(0)
    drawn_seeds = generator.integers(len(seeds), size=(DRAWS, len(seeds)))
    drawn = generator.binomial(counts[drawn_seeds], np.clip(shares[drawn_seeds], 0, 1)) / counts[drawn_seeds]
    means = drawn.mean(axis=(1, 2))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(shares.mean()), float(low), float(high))
