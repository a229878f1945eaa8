"""Finds the text that rows share because they were made from one template: instructions, questions, frames.

Rows of one template are alike in most of their text and still differ in all that matters. So what is compared
is what varies: the words of a row that are not in a frequent sequence of words that the other row has too.
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
"""A sequence in at least this many texts belongs to a template. Fewer may be copies of one row."""
HEAVY: Final = 50
"""A sequence in at least this many texts is left out before candidates are searched, because all texts that
share it would be candidates."""


def words(text: str) -> list[str]:
    return WORD.findall(text)


class Templates:
    """The frequent sequences of words in texts that are normalized."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts: Counter[int] = Counter()
        for text in texts:
            counts.update(set(_sequences(words(text))))
        self._frequent = {sequence: count for sequence, count in counts.items() if count >= FREQUENT}

    def of(self, text: str) -> frozenset[int]:
        """The frequent sequences in `text`."""
        return frozenset(sequence for sequence in _sequences(words(text)) if sequence in self._frequent)

    def without_heavy(self, text: str) -> str:
        """The text without sequences that very many texts share."""
        found = words(text)
        heavy = frozenset(s for s in _sequences(found) if self._frequent.get(s, 0) >= HEAVY)
        return varying(text, heavy) if heavy else text


def varying(text: str, shared: frozenset[int]) -> str:
    """The words of `text` that are in no sequence of `shared`, with single spaces."""
    found = words(text)
    is_shared = [False] * len(found)
    for start, sequence in enumerate(_sequences(found)):
        if sequence in shared:
            is_shared[start : start + SEQUENCE] = [True] * SEQUENCE
    return " ".join(word for word, shared_too in zip(found, is_shared, strict=True) if not shared_too)


def _sequences(found: Sequence[str]) -> list[int]:
    return [hash(tuple(found[i : i + SEQUENCE])) for i in range(len(found) - SEQUENCE + 1)]
