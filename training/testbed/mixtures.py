"""Mixtures: the adapters of the testbed that are combined."""

from dataclasses import dataclass
from itertools import combinations

from lora_compose.training.testbed.language import SKILLS, STYLES


@dataclass(frozen=True)
class Mixture:
    """Adapters that are combined: skills, then styles, each in the order of `language.py`."""

    members: tuple[str, ...]

    @property
    def skills(self) -> tuple[str, ...]:
        return tuple(name for name in self.members if name in SKILLS)

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(name for name in self.members if name in STYLES)

    @property
    def label(self) -> str:
        return "+".join(self.members)

    @property
    def kind(self) -> str:
        """`skill+style`, `style+style`, `skill+skill+style`, ..."""
        return "+".join(["skill"] * len(self.skills) + ["style"] * len(self.styles))


def all_mixtures(size: int) -> list[Mixture]:
    """Every combination of `size` adapters of the testbed."""
    return [Mixture(members) for members in combinations((*SKILLS, *STYLES), size)]
