"""SmolLM2 with its adapters, as a subject of the quality tables."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import train
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.mixtures import Mixture, all_mixtures
from lora_compose.training.testbed.smollm2.forms import SKILLS, STYLES
from lora_compose.training.testbed.smollm2.measure import open_base
from lora_compose.training.testbed.smollm2.paths import ADAPTERS_DIR, DATA_DIR, RECIPES_DIR, SMOLLM2_DIR
from lora_compose.training.testbed.smollm2.shares import shares_of
from lora_compose.training.testbed.smollm2.train_adapters import METHODS, train_adapter
from lora_compose.training.testbed.subject import Ask, Cell, Part
from lora_compose.training.tuning.weight_search import Score, Search, Trial

TRIPLES: Final = ("order+greet+sign", "triage+greet+sign", "order+greet+terse")
"""The triples that are measured."""
WEIGHTS: Final = (0.6, 1.0, 1.4)
"""The weights that the search tries for each member. Answers of this base cost too much for a finer grid."""


@dataclass(frozen=True)
class SmolLM2:
    """See Subject. `base` is the directory of the base."""

    base: Path
    name: str = "SmolLM2-135M"
    known_skills: tuple[str, ...] = SKILLS
    file: Path = SMOLLM2_DIR / "quality.json"
    ways: tuple[str, ...] = ("stack", "linear, mean", "ties", "svd", "dare_ties", "magnitude_prune")
    searched_kinds: tuple[str, ...] = ("skill+style",)
    runs: Path = Path("runs/quality/smollm2")

    @property
    def mixed(self) -> tuple[Mixture, ...]:
        """All mixtures whose members are trained on answers. Preferences cannot be mixed with answers."""
        return tuple(m for m in self.mixtures() if all(METHODS[name] == "sft" for name in m.members))

    def load(self) -> MergedBase:
        return open_base(self.base)

    def adapters(self, seed: int) -> Path:
        """Seed 0 is shipped."""
        if seed == 0:
            return ADAPTERS_DIR
        directory = self.runs / f"seed-{seed}"
        for name in METHODS:
            if not (directory / name).exists():
                train_adapter(name, self.base, self.runs / f"runs-{seed}", directory / name, seed)
        return directory

    def mixtures(self) -> list[Mixture]:
        """Those of the shipped adapters."""
        styles = [style for style in STYLES if (ADAPTERS_DIR / style).is_dir()]
        triples = [mixture for mixture in all_mixtures(3, SKILLS, styles) if mixture.label in TRIPLES]
        return [*all_mixtures(2, SKILLS, styles), *triples]

    def shares(self, mixture: Mixture, ask: Ask, part: Part) -> Cell:
        return shares_of(mixture.skills, mixture.styles, ask, part)

    def search(self, members: int, score: Score, on_progress: Callable[[Trial], None]) -> Trial:
        """The best of a small grid."""
        return Search(score, on_progress).best_of(list(product(WEIGHTS, repeat=members)))

    def train_mixed(self, mixture: Mixture, seed: int, scratch: Path) -> Lora:
        """With the recipe of the first member, for the sum of all members' steps."""
        options = ["--model-name-or-path", str(self.base), "--output-dir", str(scratch / "run")]
        recipes = [read_recipe("sft", RECIPES_DIR / f"{name}.yaml", options) for name in mixture.members]
        steps = sum(recipe.training.max_steps for recipe in recipes)
        options += ["--max-steps", str(steps), "--seed", str(seed)]
        options += ["--domain", *(str(DATA_DIR / f"{name}.jsonl") for name in mixture.members)]
        run = train(read_recipe("sft", RECIPES_DIR / f"{mixture.members[0]}.yaml", options))
        return open_adapter(run.adapter)
