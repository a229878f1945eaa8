"""Find texts that are equal after normalization, or similar by the Jaccard similarity of their shingles.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3), from the library
datasketch, proposes pairs. The exact similarity of each proposed pair is then computed, so no pair is false.
Text of a template is not compared (`templates.py`): what very many texts share, and what a text shares with
several others that are as similar to it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from lora_compose.training.data.rows import normalized
from lora_compose.training.data.templates import FREQUENT, HEAVY, frequent, sequences, varying

THRESHOLD: Final = 0.8
SHINGLE: Final = 4
"""Characters of a shingle."""
SHORTEST_NEAR: Final = 24
"""Shorter texts, in characters, are only compared exactly: two questions may differ in one letter."""
DECISIVE: Final = re.compile(
    r"\d+|\s[<>]=?\s|[=!]=|[+*/-]=|&&|\|\|"
    r"|\b(?:not|no|never|without|nicht|nie|niemals|ohne|kein\w*|ne|pas|jamais|sans|nunca|sin)\b|n't|않|없|못"
)
"""Numbers, operators of programs, and words that negate. Texts that differ in one of them are different."""
PERMUTATIONS: Final = 128
SLACK: Final = 0.25
"""Proposals use a threshold lower by this, so that few pairs are missed. The exact similarity decides."""


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
    """The copies among texts, each with its group. Only texts of one group are compared.

    The search is repeated without the copies found, until it finds none: with fewer texts, less of them is a
    template's. So a search among the texts that are left finds nothing.
    """
    copies, left = Copies({}, {}), list(range(len(texts)))
    while True:
        found = _one_search([texts[number] for number in left], threshold)
        for all_of_kind, new in ((copies.exact, found.exact), (copies.near, found.near)):
            all_of_kind |= {left[number]: left[other] for number, other in new.items()}
        left = [number for number in left if number not in copies.exact and number not in copies.near]
        if not found.exact and not found.near:
            return copies


def _one_search(texts: Sequence[tuple[str, str]], threshold: float) -> Copies:
    index = TextIndex(texts, threshold)
    copies, kept = Copies({}, {}), set[int]()
    for number in range(len(texts)):
        if (same := index.same(number, kept.__contains__)) is not None:
            copies.exact[number] = same
        elif (near := index.near(number, kept.__contains__)) is not None:
            copies.near[number] = near
        else:
            kept.add(number)
    return copies


@dataclass(frozen=True)
class IndexedText:
    """A text as an index compares it. Only texts of one group can be near duplicates."""

    text: str
    """Normalized."""
    group: str

    @cached_property
    def shingles(self) -> frozenset[str]:
        return shingles(self.text)

    @cached_property
    def decisive(self) -> list[str]:
        """The numbers, operators and negations, in order."""
        return DECISIVE.findall(self.text)

    @cached_property
    def sequences(self) -> frozenset[int]:
        return sequences(self.text)


Among = Callable[[int], bool]
"""Whether a text, by its number, may be the original of a copy."""


class TextIndex:
    """Texts with their groups, by their positions. All are known before the first is searched."""

    def __init__(self, texts: Sequence[tuple[str, str]], threshold: float = THRESHOLD) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._texts = [IndexedText(normalized(text), group) for text, group in texts]
        self._heavy = frequent((text.sequences for text in self._texts), HEAVY)
        proposals = max(0.1, threshold - SLACK)
        self._index = MinHashLSH(threshold=proposals, num_perm=PERMUTATIONS)
        self._same: dict[tuple[str, str], list[int]] = {}
        for number, text in enumerate(self._texts):
            same = self._same.setdefault((text.group, text.text), [])
            same.append(number)
            if same == [number]:
                self._index.insert(number, self._minhash(text))

    def same(self, number: int, among: Among) -> int | None:
        """The first of `among` that is equal after normalization, in the same group, or None."""
        return next((other for other in self._equals(number) if other != number and among(other)), None)

    def near(self, number: int, among: Among) -> int | None:
        """The first of `among` that is a near duplicate in the same group, or None.

        A near duplicate has the same numbers, operators and negations, and its similarity in what varies is
        at least the threshold.
        """
        text = self._texts[number]
        if len(text.text) < SHORTEST_NEAR:
            return None
        related = self._related(number)
        template = frequent((self._texts[other].sequences for other in related), FREQUENT) | self._heavy
        for other in related:
            found = next(filter(among, self._equals(other)), None)
            if other != number and found is not None and self._are_near(text, self._texts[other], template):
                return found
        return None

    def _equals(self, number: int) -> list[int]:
        text = self._texts[number]
        return self._same[text.group, text.text]

    def _related(self, number: int) -> list[int]:
        """The different texts of the group that are nearly as similar as a near duplicate; itself too."""
        text = self._texts[number]
        proposed = sorted(self._index.query(self._minhash(text)))
        return [other for other in proposed if self._is_related(text, self._texts[other])]

    def _is_related(self, a: IndexedText, b: IndexedText) -> bool:
        return a.group == b.group and jaccard(a.shingles, b.shingles) >= self._threshold - SLACK

    def _are_near(self, a: IndexedText, b: IndexedText, template: frozenset[int]) -> bool:
        """Whether two texts are alike, also in what varies."""
        if a.decisive != b.decisive or jaccard(a.shingles, b.shingles) < self._threshold:
            return False
        shared = template & a.sequences & b.sequences
        if not shared:
            return True
        rest_a, rest_b = (varying(text.text, shared) for text in (a, b))
        if min(len(rest_a), len(rest_b)) < SHORTEST_NEAR:
            return rest_a == rest_b
        return jaccard(shingles(rest_a), shingles(rest_b)) >= self._threshold

    def _minhash(self, text: IndexedText) -> object:
        """The MinHash of the text without the sequences that very many texts share."""
        from datasketch import MinHash

        heavy = self._heavy & text.sequences
        searched = shingles(varying(text.text, heavy)) if heavy else text.shingles
        made = MinHash(num_perm=PERMUTATIONS, seed=1)
        made.update_batch([shingle.encode() for shingle in sorted(searched)])
        return made
