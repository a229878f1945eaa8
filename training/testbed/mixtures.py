"""Mixtures: the adapters of a model that are combined."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from lora_compose.training.testbed.language import SKILLS, STYLES

TESTBED_SKILLS = tuple(SKILLS)
"""The skills of the embedded base."""


@dataclass(frozen=True)
class Mixture:
    """Adapters that are combined: skills, then styles."""

    members: tuple[str, ...]
    known_skills: tuple[str, ...] = TESTBED_SKILLS
    """The adapters of the model that are skills. All others are styles."""

    @property
    def skills(self) -> tuple[str, ...]:
        return tuple(name for name in self.members if name in self.known_skills)

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(name for name in self.members if name not in self.known_skills)

    @property
    def label(self) -> str:
        return "+".join(self.members)

    @property
    def kind(self) -> str:
        """`skill+style`, `style+style`, `skill+skill+style`, ..."""
        return "+".join(["skill"] * len(self.skills) + ["style"] * len(self.styles))


def all_mixtures(
    size: int, skills: Sequence[str] = TESTBED_SKILLS, styles: Sequence[str] = tuple(STYLES)
) -> list[Mixture]:
    """Every combination of `size` adapters of a model."""
    return [Mixture(members, tuple(skills)) for members in combinations((*skills, *styles), size)]
