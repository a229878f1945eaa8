"""What a weight search wins back for a pair, offline, by training/tuning/weight_search.py.

The search sees composed examples of other words; what it found is asked the words that the whole table is
about. The skill `code` knows 32 names only, so there the two overlap.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

from adapters.composition import Composition, Member
from adapters.merge import Ingredient, build
from adapters.method_options import MethodOptions
from adapters.peft_format import open_adapter
from training.testbed.merged_base import MergedBase
from training.testbed.mixtures import Mixture, kept
from training.testbed.paths import ADAPTERS_DIR, BASE_NAME
from training.tuning.tune import with_weights
from training.tuning.weight_search import Trial, Weights, search

VALIDATION: Final = 32
"""Composed examples the search scores weights on."""
VALIDATION_SEED: Final = 77


def joint(testbed: MergedBase, mixture: Mixture, weights: Weights, n: int, seed: int) -> float:
    """Exactly right answers of the stack at `weights`."""
    members = [Ingredient(ADAPTERS_DIR / name, w) for name, w in zip(mixture.members, weights, strict=True)]
    with tempfile.TemporaryDirectory() as directory:
        build("stack", members, MethodOptions(), Path(directory), BASE_NAME)
        stack = open_adapter(Path(directory))
    with testbed.holding(stack):
        return kept(mixture, testbed.ask, n, seed).joint


def tuned(testbed: MergedBase, mixture: Mixture, n: int, seed: int) -> dict[str, Any]:
    """What the search found, and what it scores where it was searched and where the table asks."""
    tried: list[Trial] = []
    best = search(
        len(mixture.members),
        lambda weights: joint(testbed, mixture, weights, VALIDATION, VALIDATION_SEED),
        tried.append,
    )
    ones = (1.0,) * len(mixture.members)
    named = Composition(tuple(Member(name) for name in sorted(mixture.members)))
    by_name = dict(zip(mixture.members, best.weights, strict=True))
    return {
        "composition": with_weights(named, tuple(by_name[member.name] for member in named.members)).canonical,
        "trials": len(tried),
        "searched_before": next(trial.score for trial in tried if trial.weights == ones),
        "searched_after": best.score,
        "before": joint(testbed, mixture, ones, n, seed),
        "after": joint(testbed, mixture, best.weights, n, seed),
    }
