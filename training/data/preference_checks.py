"""Faults of preference data, and the one that hides best: that the longer answer is mostly the chosen one.

A model trained on such pairs learns to be long (Singhal et al., 2023, arXiv:2310.03716).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lora_compose.training.data.layouts import Row
from lora_compose.training.data.rows import asked_text, normalized

FIRES_AT = 0.6
"""A classifier that only looks at length and is right more often than this."""


@dataclass(frozen=True)
class LengthBias:
    """How much length alone tells of which answer was chosen. Lengths in characters."""

    pairs: int
    longer: int
    """Pairs whose chosen answer is the longer."""
    shorter: int
    mean_difference: float
    """Chosen less rejected."""

    @property
    def accuracy(self) -> float:
        """Of the better of "the longer is chosen" and "the shorter is chosen"; a draw is a coin toss."""
        draws = self.pairs - self.longer - self.shorter
        return (max(self.longer, self.shorter) + draws / 2) / self.pairs

    @property
    def fires(self) -> bool:
        """Whether it is worth correcting: what a fair coin gives by chance is let pass."""
        chance = 1.96 * 0.5 / math.sqrt(self.pairs)
        return self.accuracy > max(FIRES_AT, 0.5 + chance)


def length_bias(rows: Sequence[Row]) -> LengthBias:
    """Of preference rows, at least one."""
    differences = [difference(row) for row in rows]
    return LengthBias(
        len(rows), sum(d > 0 for d in differences), sum(d < 0 for d in differences), fmean(differences)
    )


def difference(row: Row) -> int:
    """Length of the chosen answer less the rejected's."""
    return len(_text(row, "chosen")) - len(_text(row, "rejected"))


def balanced(rows: Sequence[Row], seed: int) -> list[int]:
    """Positions to keep, so that longer and shorter are chosen equally often; pairs of equal length stay."""
    longer = [i for i, row in enumerate(rows) if difference(row) > 0]
    shorter = [i for i, row in enumerate(rows) if difference(row) < 0]
    count = min(len(longer), len(shorter))
    rng = random.Random(seed)
    dropped = set(longer) - set(rng.sample(longer, count)) | set(shorter) - set(rng.sample(shorter, count))
    return [i for i in range(len(rows)) if i not in dropped]


def identical(rows: Sequence[Row]) -> list[int]:
    """Positions of pairs that prefer an answer to itself."""
    return [
        i
        for i, row in enumerate(rows)
        if normalized(_text(row, "chosen")) == normalized(_text(row, "rejected"))
    ]


def contradictory(rows: Sequence[Row]) -> list[int]:
    """Positions of pairs of which the opposite is there too: nobody knows which of them is right."""
    keys = [
        (normalized(asked_text(row)), normalized(_text(row, "chosen")), normalized(_text(row, "rejected")))
        for row in rows
    ]
    there = set(keys)
    return [
        i
        for i, (asked, chosen, rejected) in enumerate(keys)
        if (asked, rejected, chosen) in there and chosen != rejected
    ]


def _text(row: Row, column: str) -> str:
    return "\n".join(message["content"] for message in row[column])
