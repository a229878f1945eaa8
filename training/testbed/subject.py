"""What the quality of compositions is measured on: a model with its adapters and their judges."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from lora_compose.adapters.peft.checkpoint import Lora
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.mixtures import Mixture
from lora_compose.training.tuning.weight_search import Score, Trial

Ask = Callable[[Sequence[str]], list[str]]
Part = Literal["tune", "score"]
"""Which held-out rows: those that weights are searched on, or those of the scores."""
Cell = Mapping[str, Any]
"""The shares of one mixture and way: `joint`, `content`, `style`, `members`, and `n`, the answers."""


class Subject(Protocol):
    """A model with adapters."""

    @property
    def name(self) -> str: ...

    @property
    def known_skills(self) -> tuple[str, ...]: ...

    @property
    def file(self) -> Path:
        """The file of results."""
        ...

    @property
    def ways(self) -> tuple[str, ...]:
        """Names in WAYS."""
        ...

    @property
    def mixed(self) -> tuple[Mixture, ...]:
        """The mixtures that are also compared with one adapter trained on the data of all members."""
        ...

    @property
    def searched_kinds(self) -> tuple[str, ...]:
        """The kinds of mixtures whose weights are searched."""
        ...

    def load(self) -> MergedBase: ...

    def adapters(self, seed: int) -> Path:
        """The directory of the adapters of a training seed. Missing adapters are trained."""
        ...

    def mixtures(self) -> list[Mixture]:
        """What is combined, in the order of measuring."""
        ...

    def shares(self, mixture: Mixture, ask: Ask, part: Part) -> Cell: ...

    def search(self, members: int, score: Score, on_progress: Callable[[Trial], None]) -> Trial: ...

    def train_mixed(self, mixture: Mixture, seed: int, scratch: Path) -> Lora:
        """One adapter, trained on the data of all members."""
        ...
