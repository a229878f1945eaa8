"""Rows with unusual lengths or rare languages. They are reported, and dropped only if bounds are given."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from lora_compose.training.data.messages import Row
from lora_compose.training.data.rows import answers, spoken_text, whole_text

FAR = 3.5
"""A length with a higher modified z-score is unusual (Iglewicz and Hoaglin, 1993)."""
MIN_LANGUAGE_CHARS = 24
"""The language of a shorter text is not detected."""


def far_lengths(rows: Sequence[Row]) -> list[int]:
    """Positions of rows whose log length is far from the median, by the median absolute deviation."""
    lengths = [math.log1p(len(whole_text(row))) for row in rows]
    middle = median(lengths)
    spread = median(abs(length - middle) for length in lengths) / 0.6745
    floor = math.log(1.5) / FAR  # among rows of equal length, a factor of up to 1.5 is not an outlier
    return [i for i, length in enumerate(lengths) if abs(length - middle) > FAR * max(spread, floor)]


def languages(rows: Sequence[Row]) -> list[str]:
    """The language of each row, by py3langid (97 languages, 0.1 ms a row); "?" if the text is too short.

    Questions and answers are read together, because many answers are short, or are names and code.
    """
    from py3langid import classify

    found = []
    for row in rows:
        text = spoken_text(row)
        found.append(classify(text)[0] if len(text) >= MIN_LANGUAGE_CHARS else "?")
    return found


def rare_languages(found: Sequence[str], share: float = 0.02) -> set[str]:
    """Languages with less than `share` of the rows whose language was detected."""
    counts = Counter(language for language in found if language != "?")
    return {language for language, count in counts.items() if count < share * counts.total()}


def outside(rows: Sequence[Row], shortest: int, longest: int | None) -> list[int]:
    """Positions of rows whose answers have fewer or more characters than the bounds."""
    sizes = [sum(map(len, answers(row))) for row in rows]
    return [i for i, size in enumerate(sizes) if size < shortest or (longest is not None and size > longest)]
