"""Finds the text that rows share because they were made from one template: instructions, questions, frames.

Rows of one template are alike in most of their text and still differ in all that matters. So what is compared
is what varies: the words of a row that are not in a sequence of words that belongs to the template.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
"""A word, a sign, or one character of a script that is written without spaces."""
SEQUENCE: Final = 6
"""Words in a sequence."""
FREQUENT: Final = 4
"""A sequence of this many texts that are alike is a template's. Fewer texts may be copies of one row."""
HEAVY: Final = 50
"""A sequence in at least this many texts is a template's, and is left out before candidates are searched:
otherwise all texts that share it would be candidates."""


def words(text: str) -> list[str]:
    return WORD.findall(text)


def sequences(text: str) -> frozenset[int]:
    """The sequences of words of a text."""
    return frozenset(_sequences(words(text)))


def frequent(texts: Iterable[frozenset[int]], least: int) -> frozenset[int]:
    """The sequences that at least `least` of the texts have."""
    counts = Counter(sequence for text in texts for sequence in text)
    return frozenset(sequence for sequence, count in counts.items() if count >= least)


def varying(text: str, template: frozenset[int]) -> str:
    """The words of `text` that are in no sequence of `template`, with single spaces."""
    found = words(text)
    is_shared = [False] * len(found)
    for start, sequence in enumerate(_sequences(found)):
        if sequence in template:
            is_shared[start : start + SEQUENCE] = [True] * SEQUENCE
    return " ".join(word for word, shared_too in zip(found, is_shared, strict=True) if not shared_too)


def _sequences(found: Sequence[str]) -> list[int]:
    return [hash(tuple(found[i : i + SEQUENCE])) for i in range(len(found) - SEQUENCE + 1)]
