"""Two things that stacks are compared with: an adapter trained on the combined data of its members, and tuned
weights.

A jointly trained adapter has the rank of one member. Its training rows are all rows of its members, shuffled.
Training takes a minute or more, so only the mixtures in MIXED are trained: for each kind, some whose stacks
are good and some whose stacks are bad.

Weights are tuned for pairs, by training/tuning/weight_search.py, on composed examples of other words than
those of the final score. The skill `code` knows only 32 names, so there the words overlap.

MergedBase measures offline and without PEFT, so that only the composition that our code wrote is measured.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.adapters.composition.composition import Composition, Member, MethodOptions
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.testbed.corpus import CorpusRow, training_rows
from lora_compose.training.testbed.measure import ask
from lora_compose.training.testbed.mixtures import Mixture
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_NAME
from lora_compose.training.testbed.quality.shares import shares_of
from lora_compose.training.testbed.train_adapters import RECIPES, train_on
from lora_compose.training.tuning.tune import with_weights
from lora_compose.training.tuning.weight_search import Trial, Weights, search

MIXED: Final = (
    Mixture(("roll", "upper")),
    Mixture(("roll", "wrap")),
    Mixture(("dbl", "okay")),
    Mixture(("code", "wrap")),
    Mixture(("upper", "wrap")),
    Mixture(("bang", "polite")),
    Mixture(("roll", "dbl")),
    Mixture(("roll", "upper", "polite")),
)


def combined_rows(mixture: Mixture, seed: int) -> list[CorpusRow]:
    """The training rows of all members, as many as each was trained on, shuffled by the seed."""
    rows = [
        row
        for name in mixture.members
        for row in training_rows(name, RECIPES[name].steps * RECIPES[name].batch, seed)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def train_mixed(mixture: Mixture, base: Path, scratch: Path, seed: int = 0) -> Lora:
    """One adapter, trained on the combined rows of its members for the sum of their steps."""
    recipes = [RECIPES[name] for name in mixture.members]
    steps = sum(recipe.steps for recipe in recipes)
    recipe = replace(recipes[0], steps=steps, learning_rate=max(member.learning_rate for member in recipes))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        train_on(combined_rows(mixture, seed), recipe, base, Path(directory), seed)
        return open_adapter(Path(directory))


class MergedBase:
    """The base, with an adapter's deltas added to its weights for a while.

    The weights are restored from copies, bit for bit, and not by subtraction.
    """

    def __init__(self, base: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    @contextmanager
    @torch.no_grad()
    def holding(self, adapter: Lora) -> Iterator[None]:
        """Add the adapter's deltas to the weights while the context is open."""
        originals = {name: self.model.get_submodule(name).weight for name in adapter.modules}
        copies = {name: weight.clone() for name, weight in originals.items()}
        try:
            for name, module in adapter.modules.items():
                originals[name].add_(module.delta())
            yield
        finally:
            for name, weight in originals.items():
                weight.copy_(copies[name])

    def ask(self, messages: Sequence[str]) -> list[str]:
        """Greedy answers with the current weights."""
        return ask(self.model, self.tokenizer, messages)


VALIDATION: Final = 32
"""The number of composed examples that the search uses."""
VALIDATION_SEED: Final = 77


def joint(testbed: MergedBase, mixture: Mixture, weights: Weights, n: int, seed: int) -> float:
    """The share of exactly right answers of the stack with `weights`."""
    members = [MergeInput(ADAPTERS_DIR / name, w) for name, w in zip(mixture.members, weights, strict=True)]
    with tempfile.TemporaryDirectory() as directory:
        build("stack", members, MethodOptions(), Path(directory), MergeBase(BASE_NAME))
        stack = open_adapter(Path(directory))
    with testbed.holding(stack):
        return shares_of(mixture, testbed.ask, n, seed).joint


def tuned(testbed: MergedBase, mixture: Mixture, n: int, seed: int) -> dict[str, Any]:
    """The weights found, and their scores on the words of the search and on the words of the table."""
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
