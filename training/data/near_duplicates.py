"""Find texts that are equal after normalization, or similar by the Jaccard similarity of their shingles.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3), from the library
datasketch, proposes pairs. The exact similarity of each proposed pair is then computed, so no pair is false.
Text that many rows share is not compared (`templates.py`).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
    for number, (content, group) in enumerate(texts):
        text = index.read(content, group)
        if (same := index.same(text)) is not None:
            copies.exact[number] = same
        elif (near := index.near(text)) is not None:
            copies.near[number] = near
        else:
            index.add(number, text)
    return copies


@dataclass(frozen=True)
class IndexedText:
    """A text as an index compares it. Only texts of one group can be near duplicates."""

    text: str
    """Normalized."""
    group: str
    templates: frozenset[int]
    """The sequences of words in it that many texts share."""
    shingles: frozenset[str]
    searched: frozenset[str]
    """The shingles by which candidates are found: without sequences that very many texts share."""

    @cached_property
    def key(self) -> tuple[str, str]:
        """Equal for texts of one group that are equal after normalization."""
        return self.group, hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def minhash(self) -> object:
        """The MinHash of `searched`."""
        from datasketch import MinHash

        made = MinHash(num_perm=PERMUTATIONS, seed=1)
        made.update_batch([shingle.encode() for shingle in sorted(self.searched)])
        return made


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
        self._texts: dict[int, IndexedText] = {}
        self._exact: dict[tuple[str, str], int] = {}

    def read(self, text: str, group: str = "") -> IndexedText:
        """The text as the other methods take it. What they compare is computed once."""
        text = normalized(text)
        templates, own = self._templates.of(text), shingles(text)
        searched = shingles(self._templates.without_heavy(text)) if templates else own
        return IndexedText(text, group, templates, own, searched)

    def same(self, text: IndexedText) -> int | None:
        """The number of a text of the same group that is equal after normalization, or None."""
        return self._exact.get(text.key)

    def near(self, text: IndexedText) -> int | None:
        """The lowest number of a near duplicate in the same group, or None.

        A near duplicate has the same numbers, and its similarity in what varies is at least the threshold.
        """
        if len(text.text) < SHORTEST_NEAR:
            return None
        proposed = sorted(self._index.query(text.minhash))
        return next((number for number in proposed if self._are_near(text, self._texts[number])), None)

    def add(self, number: int, text: IndexedText) -> None:
        """Add a text under a new number."""
        self._texts[number] = text
        self._exact.setdefault(text.key, number)
        self._index.insert(number, text.minhash)

    def _are_near(self, a: IndexedText, b: IndexedText) -> bool:
        if a.group != b.group or jaccard(a.shingles, b.shingles) < self._threshold:
            return False
        shared = a.templates & b.templates
        rest_a, rest_b = (varying(text.text, shared) if shared else text.text for text in (a, b))
        if NUMBER.findall(rest_a) != NUMBER.findall(rest_b):
            return False
        if shared and min(len(rest_a), len(rest_b)) < SHORTEST_NEAR:
            return rest_a == rest_b
        return not shared or jaccard(shingles(rest_a), shingles(rest_b)) >= self._threshold
