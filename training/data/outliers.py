"""Rows unlike the others, by length and by language: shown, and dropped only where bounds are given."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from lora_compose.training.data.layouts import Row
from lora_compose.training.data.rows import answers, whole_text

FAR = 3.5
"""Modified z-score above which a length is far from the rest: Iglewicz and Hoaglin, 1993."""
SHORTEST_TELLING = 24
"""Characters below which a language cannot be told."""


def far_lengths(rows: Sequence[Row]) -> list[int]:
    """Positions whose log length is far from the median, by the median absolute deviation."""
    lengths = [math.log1p(len(whole_text(row))) for row in rows]
    middle = median(lengths)
    spread = median(abs(length - middle) for length in lengths) / 0.6745
    floor = math.log(1.5) / FAR  # rows that are all alike have no outlier within a factor of 1.5
    return [i for i, length in enumerate(lengths) if abs(length - middle) > FAR * max(spread, floor)]


def languages(rows: Sequence[Row]) -> list[str]:
    """Each row's, by py3langid (97 languages, 0.1 ms a row); "?" where the text is too short to tell."""
    from py3langid import classify

    found = []
    for row in rows:
        text = " ".join(answers(row))
        found.append(classify(text)[0] if len(text) >= SHORTEST_TELLING else "?")
    return found


def rare_languages(found: Sequence[str], share: float = 0.02) -> set[str]:
    """Languages of fewer rows than this share of those that could be told."""
    counts = Counter(language for language in found if language != "?")
    return {language for language, count in counts.items() if count < share * counts.total()}


def outside(rows: Sequence[Row], shortest: int, longest: int | None) -> list[int]:
    """Positions whose answers have fewer or more characters than the bounds."""
    sizes = [sum(map(len, answers(row))) for row in rows]
    return [i for i, size in enumerate(sizes) if size < shortest or (longest is not None and size > longest)]
