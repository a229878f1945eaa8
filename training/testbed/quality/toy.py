"""The embedded base with its adapters, as a subject of the quality tables."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.testbed.corpus import CorpusRow, training_rows
from lora_compose.training.testbed.measure import LONGEST_ANSWER
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.mixtures import TESTBED_SKILLS, Mixture, all_mixtures
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, TESTBED_DIR
from lora_compose.training.testbed.quality.shares import shares_of
from lora_compose.training.testbed.quality.ways import WAYS
from lora_compose.training.testbed.subject import Ask, Cell, Part
from lora_compose.training.testbed.train_adapters import RECIPES, train_adapter, train_on
from lora_compose.training.tuning.weight_search import Score, Trial, search

COMPARED: Final = (
    Mixture(("roll", "upper")),
    Mixture(("roll", "wrap")),
    Mixture(("dbl", "okay")),
    Mixture(("code", "wrap")),
    Mixture(("upper", "wrap")),
    Mixture(("bang", "polite")),
    Mixture(("roll", "dbl")),
    Mixture(("roll", "upper", "polite")),
)
"""For each kind, some whose stacks are good and some whose stacks are bad."""
ROWS: Final[dict[Part, tuple[int, int]]] = {"tune": (32, 77), "score": (100, 1000)}
"""How many prompts for each skill, and the seed of their words.

`code` knows only 32 names, so there the words of both parts overlap.
"""


def combined_rows(mixture: Mixture, seed: int) -> list[CorpusRow]:
    """The training rows of all members, as many as each was trained on, shuffled by the seed."""
    rows = [
        row
        for name in mixture.members
        for row in training_rows(name, RECIPES[name].steps * RECIPES[name].batch, seed)
    ]
    random.Random(seed).shuffle(rows)
    return rows


@dataclass(frozen=True)
class Toy:
    """See Subject."""

    name: str = "embedded base"
    known_skills: tuple[str, ...] = TESTBED_SKILLS
    file: Path = TESTBED_DIR / "quality.json"
    ways: tuple[str, ...] = tuple(WAYS)
    mixed: tuple[Mixture, ...] = COMPARED
    searched_kinds: tuple[str, ...] = ("skill+style", "style+style", "skill+skill")
    runs: Path = Path("runs/quality/toy")

    def load(self) -> MergedBase:
        return MergedBase(BASE_DIR, LONGEST_ANSWER)

    def adapters(self, seed: int) -> Path:
        """Seed 0 is shipped."""
        if seed == 0:
            return ADAPTERS_DIR
        directory = self.runs / f"seed-{seed}"
        for name, recipe in RECIPES.items():
            if not (directory / name).exists():
                train_adapter(name, recipe, BASE_DIR, directory / name, seed)
        return directory

    def mixtures(self) -> list[Mixture]:
        return [*all_mixtures(2), *all_mixtures(3)]

    def shares(self, mixture: Mixture, ask: Ask, part: Part) -> Cell:
        n, seed = ROWS[part]
        return asdict(shares_of(mixture, ask, n, seed)) | {"n": n * max(1, len(mixture.skills))}

    def search(self, members: int, score: Score, on_progress: Callable[[Trial], None]) -> Trial:
        return search(members, score, on_progress)

    def train_mixed(self, mixture: Mixture, seed: int, scratch: Path) -> Lora:
        """With the rank of one member, for the sum of their steps."""
        recipes = [RECIPES[name] for name in mixture.members]
        steps = sum(recipe.steps for recipe in recipes)
        rate = max(recipe.learning_rate for recipe in recipes)
        recipe = replace(recipes[0], steps=steps, learning_rate=rate)
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            train_on(combined_rows(mixture, seed), recipe, BASE_DIR, Path(directory), seed)
            return open_adapter(Path(directory))
