"""The names of the combination methods and the options each one takes, as plain data.

Composition text is parsed where torch is not wanted, and the merge mathematics needs the same words: both
read them here. This file computes nothing: `adapters/methods.py` does, and a test keeps the two agreed.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

MAX_RANK = MAX_SEED = 2**31 - 1

Rank = Annotated[int, Ge(1), Le(MAX_RANK)]
Density = Annotated[float, Gt(0), Le(1)]
Seed = Annotated[int, Ge(0), Le(MAX_SEED)]
MajoritySignMethod = Literal["total", "frequency"]

STACK = "stack"
"""The exact sum of deltas, kept factored: the method of a composition that names none."""

METHOD_NAMES: tuple[str, ...] = (
    STACK,
    "linear",
    "svd",
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
)

SPELLINGS: dict[str, str] = {"cat": STACK}
"""Other spellings accepted on input, such as PEFT's name for the exact sum."""

NEEDS_DENSITY: frozenset[str] = frozenset({"ties", "dare_linear", "dare_ties", "magnitude_prune"})
SEEDED: frozenset[str] = frozenset({"dare_linear", "dare_ties"})
ELECTS_SIGN: frozenset[str] = frozenset({"ties", "dare_ties"})
TAKES_RANK: frozenset[str] = frozenset(METHOD_NAMES) - {STACK}


@dataclass(frozen=True)
class MethodOptions:
    """How a method is to combine: a default means the request did not say."""

    rank: int | None = None
    """Rank of the result; None lets the method choose. Never given for a stack."""
    density: float | None = None
    """Fraction of each delta's entries kept, 0 < density <= 1; for the methods in NEEDS_DENSITY only."""
    seed: int = 0
    """Seed of the random drop, 0 <= seed < 2**31; for the methods in SEEDED only."""
    majority_sign_method: MajoritySignMethod = "total"
    """How the sign of an entry is elected; for the methods in ELECTS_SIGN only."""
