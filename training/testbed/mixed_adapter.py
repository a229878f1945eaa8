"""One adapter trained on the lessons of several: what composing separately trained adapters is compared with.

It has one member's rank and sees as many rows as its members saw together, shuffled. No row shows two members
at once that the members' own lessons did not. Training takes a minute or more each, so only MIXED are
trained: for each kind of mixture some whose stacks are good and some whose are bad.
"""

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from adapters.lora import Lora
from adapters.peft_format import open_adapter
from training.testbed.lessons import Row, lessons
from training.testbed.mixtures import Mixture
from training.testbed.train_adapters import RECIPES, train_on

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


def mixed_lessons(mixture: Mixture, seed: int) -> list[Row]:
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
