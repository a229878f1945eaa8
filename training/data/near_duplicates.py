"""Find texts that are equal after normalization, or similar by the Jaccard similarity of their shingles.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3), from the library
datasketch, proposes pairs. The exact similarity of each proposed pair is then computed, so no pair is false.
"""

import hashlib
from typing import Final

from lora_compose.training.data.rows import normalized

THRESHOLD: Final = 0.8
SHINGLE: Final = 4
"""Characters of a shingle."""
SHORTEST_NEAR: Final = 24
"""Shorter texts, in characters, are only compared exactly: two questions may differ in one letter."""
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


class TextIndex:
    """An index of texts, each with a unique number."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        proposals = max(0.1, threshold - PROPOSAL_SLACK)
        self._index = MinHashLSH(threshold=proposals, num_perm=PERMUTATIONS)
        self._shingles: dict[int, frozenset[str]] = {}
        self._exact: dict[str, int] = {}

    def same(self, text: str) -> int | None:
        """The number of a text that is equal after normalization, or None."""
        return self._exact.get(_digest(text))

    def near(self, text: str) -> int | None:
        """The lowest number of a text whose similarity is at least the threshold, or None."""
        if len(normalized(text)) < SHORTEST_NEAR:
            return None
        own = shingles(text)
        proposed = sorted(self._index.query(_minhash(own)))
        return next((n for n in proposed if jaccard(own, self._shingles[n]) >= self._threshold), None)

    def add(self, number: int, text: str) -> None:
        """Add a text under a new number."""
        own = shingles(text)
        self._shingles[number] = own
        self._exact.setdefault(_digest(text), number)
        self._index.insert(number, _minhash(own))


def _digest(text: str) -> str:
    return hashlib.sha256(normalized(text).encode()).hexdigest()


def _minhash(own: frozenset[str]) -> object:
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([shingle.encode() for shingle in sorted(own)])
    return made
