"""Find texts that are equal after normalization, or similar by the Jaccard similarity of their shingles.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3), from the library
datasketch, proposes pairs. The exact similarity of each proposed pair is then computed, so no pair is false.
Text that many rows share is not compared (`templates.py`).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lora_compose.training.data.rows import normalized
from lora_compose.training.data.templates import Templates, varying

THRESHOLD: Final = 0.8
SHINGLE: Final = 4
"""Characters of a shingle."""
SHORTEST_NEAR: Final = 24
"""Shorter texts, in characters, are only compared exactly: two questions may differ in one letter."""
NUMBER: Final = re.compile(r"\d+")
"""Texts with different numbers are different: two sums, or two orders."""
PERMUTATIONS: Final = 128
# Proposals use a lower threshold, so that few pairs are missed. The exact similarity decides.
PROPOSAL_SLACK: Final = 0.25


def shingles(text: str) -> frozenset[str]:
    """All substrings of `SHINGLE` characters. A shorter text is its own only shingle."""
    text = normalized(text)
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """`|a ∩ b| / |a ∪ b|`."""
    return len(a & b) / len(a | b)


@dataclass(frozen=True)
class Copies:
    """Positions of copies in a list of texts, and for each the position of the text that it copies."""

    exact: dict[int, int]
    """Equal after normalization."""
    near: dict[int, int]


def find_copies(texts: Sequence[tuple[str, str]], threshold: float = THRESHOLD) -> Copies:
    """The copies among texts, each with its group. Only texts of one group are compared."""
    index = TextIndex(threshold, Templates(normalized(text) for text, _ in texts))
    copies = Copies({}, {})
    for number, (text, group) in enumerate(texts):
        if (same := index.same(text, group)) is not None:
            copies.exact[number] = same
        elif (near := index.near(text, group)) is not None:
            copies.near[number] = near
        else:
            index.add(number, text, group)
    return copies


@dataclass(frozen=True)
class _Text:
    """A text in the index. `text` is normalized. Only texts of one group can be near duplicates."""

    text: str
    group: str
    templates: frozenset[int]
    shingles: frozenset[str]


class TextIndex:
    """An index of texts, each with a unique number.

    `templates` are those of all texts that are added or searched. Without them, whole texts are compared.
    """

    def __init__(self, threshold: float = THRESHOLD, templates: Templates | None = None) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._templates = templates or Templates(())
        proposals = max(0.1, threshold - PROPOSAL_SLACK)
        self._index = MinHashLSH(threshold=proposals, num_perm=PERMUTATIONS)
        self._texts: dict[int, _Text] = {}
        self._exact: dict[tuple[str, str], int] = {}

    def same(self, text: str, group: str = "") -> int | None:
        """The number of a text of the same group that is equal after normalization, or None."""
        return self._exact.get((group, _digest(text)))

    def near(self, text: str, group: str = "") -> int | None:
        """The lowest number of a near duplicate in the same group, or None.

        A near duplicate has the same numbers, and its similarity in what varies is at least the threshold.
        """
        own = self._text(text, group)
        if len(own.text) < SHORTEST_NEAR:
            return None
        proposed = sorted(self._index.query(self._minhash(own)))
        return next((number for number in proposed if self._are_near(own, self._texts[number])), None)

    def add(self, number: int, text: str, group: str = "") -> None:
        """Add a text under a new number."""
        own = self._texts[number] = self._text(text, group)
        self._exact.setdefault((group, _digest(text)), number)
        self._index.insert(number, self._minhash(own))

    def _text(self, text: str, group: str) -> _Text:
        text = normalized(text)
        return _Text(text, group, self._templates.of(text), shingles(text))

    def _minhash(self, own: _Text) -> object:
        return _minhash(shingles(self._templates.without_heavy(own.text)) if own.templates else own.shingles)

    def _are_near(self, a: _Text, b: _Text) -> bool:
        if a.group != b.group or jaccard(a.shingles, b.shingles) < self._threshold:
            return False
        shared = a.templates & b.templates
        rest_a, rest_b = (varying(text.text, shared) if shared else text.text for text in (a, b))
        if NUMBER.findall(rest_a) != NUMBER.findall(rest_b):
            return False
        if shared and min(len(rest_a), len(rest_b)) < SHORTEST_NEAR:
            return rest_a == rest_b
        return not shared or jaccard(shingles(rest_a), shingles(rest_b)) >= self._threshold


def _digest(text: str) -> str:
    return hashlib.sha256(normalized(text).encode()).hexdigest()


def _minhash(own: frozenset[str]) -> object:
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([shingle.encode() for shingle in sorted(own)])
    return made
