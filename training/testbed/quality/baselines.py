"""What a weight search wins back for a pair, offline, by training/tuning/weight_search.py.

The search sees composed examples of other words; what it found is asked the words that the whole table is
about. The skill `code` knows 32 names only, so there the two overlap.

One adapter trained on the lessons of several: what composing separately trained adapters is compared with.

It has one member's rank and sees as many rows as its members saw together, shuffled. No row shows two members
at once that the members' own lessons did not. Training takes a minute or more each, so only MIXED are
trained: for each kind of mixture some whose stacks are good and some whose are bad.

The base with an adapter's true deltas added to its weights, and the base again, bit for bit.

Offline and without PEFT: what is measured is the composition that our own code wrote, alone.
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
from lora_compose.adapters.merging.merge import MergeInput, build
from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.testbed.corpus import CorpusRow, lessons
from lora_compose.training.testbed.measure import ask
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_NAME
from lora_compose.training.testbed.quality.mixtures import Mixture, kept
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


def mixed_lessons(mixture: Mixture, seed: int) -> list[CorpusRow]:
    """Every member's own lessons, as many as it was trained on, in one seeded order."""
    rows = [
        row
        for name in mixture.members
        for row in lessons(name, RECIPES[name].steps * RECIPES[name].batch, seed)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def train_mixed(mixture: Mixture, base: Path, scratch: Path, seed: int = 0) -> Lora:
    """The adapter, trained as its members were, for the sum of their steps."""
    recipes = [RECIPES[name] for name in mixture.members]
    steps = sum(recipe.steps for recipe in recipes)
    recipe = replace(recipes[0], steps=steps, learning_rate=max(each.learning_rate for each in recipes))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        train_on(mixed_lessons(mixture, seed), recipe, base, Path(directory), seed)
        return open_adapter(Path(directory))


class MergedBase:
    """One model in memory; weights are put back from copies, never by subtraction."""

    def __init__(self, base: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    @contextmanager
    @torch.no_grad()
    def holding(self, adapter: Lora) -> Iterator[None]:
        """The adapter merged in while the context is open."""
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
        """Greedy answers of what it holds now."""
        return ask(self.model, self.tokenizer, messages)


VALIDATION: Final = 32
"""Composed examples the search scores weights on."""
VALIDATION_SEED: Final = 77


def joint(testbed: MergedBase, mixture: Mixture, weights: Weights, n: int, seed: int) -> float:
    """Exactly right answers of the stack at `weights`."""
    members = [MergeInput(ADAPTERS_DIR / name, w) for name, w in zip(mixture.members, weights, strict=True)]
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
