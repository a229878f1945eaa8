"""Checks of preference data: length bias, identical answers, and pairs or labels that contradict each other.

Length bias means that the chosen answer is mostly the longer one. A model trained on such pairs learns to
write long answers (Singhal et al., 2023, arXiv:2310.03716).
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lora_compose.training.data.messages import Row, said
from lora_compose.training.data.rows import normalized, prompt_text

FIRES_AT = 0.6
"""Length bias is reported if length alone predicts the chosen answer more often than this."""


@dataclass(frozen=True)
class LengthBias:
    """How well length alone predicts the chosen answer. Lengths are in characters."""

    pairs: int
    longer: int
    """Pairs whose chosen answer is the longer one."""
    shorter: int
    mean_difference: float
    """Mean length of the chosen answers minus that of the rejected answers."""

    @property
    def accuracy(self) -> float:
        """The accuracy of the better rule, "the longer is chosen" or "the shorter is chosen".

        A pair of equal lengths counts half.
        """
        draws = self.pairs - self.longer - self.shorter
        return (max(self.longer, self.shorter) + draws / 2) / self.pairs

    @property
    def fires(self) -> bool:
        """Whether the bias should be corrected. An accuracy that can be chance (95 %) does not count."""
        chance = 1.96 * 0.5 / math.sqrt(self.pairs)
        return self.accuracy > max(FIRES_AT, 0.5 + chance)


def length_bias(rows: Sequence[Row]) -> LengthBias:
    """The length bias of preference rows. There must be at least one row."""
    differences = [difference(row) for row in rows]
    return LengthBias(
        len(rows), sum(d > 0 for d in differences), sum(d < 0 for d in differences), fmean(differences)
    )


def difference(row: Row) -> int:
    """Length of the chosen answer minus that of the rejected answer."""
    return len(_text(row, "chosen")) - len(_text(row, "rejected"))


def balanced(rows: Sequence[Row], seed: int) -> list[int]:
    """Positions to keep so that longer and shorter answers are chosen equally often.

    Pairs of equal length stay.
    """
    longer = [i for i, row in enumerate(rows) if difference(row) > 0]
    shorter = [i for i, row in enumerate(rows) if difference(row) < 0]
    count = min(len(longer), len(shorter))
    rng = random.Random(seed)
    dropped = set(longer) - set(rng.sample(longer, count)) | set(shorter) - set(rng.sample(shorter, count))
    return [i for i in range(len(rows)) if i not in dropped]


def identical(rows: Sequence[Row]) -> list[int]:
    """Positions of pairs whose chosen and rejected answers are the same."""
    return [
        i
        for i, row in enumerate(rows)
        if normalized(_text(row, "chosen")) == normalized(_text(row, "rejected"))
    ]


def contradictory(rows: Sequence[Row]) -> list[int]:
    """Positions of pairs whose opposite is also in the data, so that it is unclear which is right."""
    keys = [
        (normalized(prompt_text(row)), normalized(_text(row, "chosen")), normalized(_text(row, "rejected")))
        for row in rows
    ]
    known = set(keys)
    return [
        i
        for i, (prompt, chosen, rejected) in enumerate(keys)
        if (prompt, rejected, chosen) in known and chosen != rejected
    ]


def with_both_labels(rows: Sequence[Row]) -> list[int]:
    """Positions of labelled answers that are marked as good and as bad for one prompt. Case counts."""
    keys = [tuple((m["role"], said(m)) for m in [*row["prompt"], *row["completion"]]) for row in rows]
    labels: dict[object, set[bool]] = defaultdict(set)
    for key, row in zip(keys, rows, strict=True):
        labels[key].add(row["label"])
    return [i for i, key in enumerate(keys) if len(labels[key]) > 1]


def _text(row: Row, column: str) -> str:
    return "\n".join(said(message) for message in row[column])
