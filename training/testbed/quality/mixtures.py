"""Which adapters of the testbed can be combined, and how much of each member's skill an answer shows.

A mixture with skills is asked for each of them in turn, in the prompt that names it; one without is asked for
the word itself. The one right answer has the content of the skill asked for and the form of all the styles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import mean

from lora_compose.training.testbed.demo.table import does_skill, does_style
from lora_compose.training.testbed.language import SKILLS, STYLES, answer, prompts, styled

Ask = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Mixture:
    """Two or more adapters, skills first, each in the order of `tasks.py`."""

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


@dataclass(frozen=True)
class KeptShares:
    """Shares of answers, each the mean over the skills asked for."""

    joint: float
    """The one right answer."""
    content: float
    """Its content, in whichever form."""
    style: float
    """Its form, whatever the content. 1 where no style is in the mixture: there is no form to keep."""
    members: dict[str, float]
    """A skill: its own content when it is asked for. A style: its mark, beside whichever others."""


def all_mixtures(size: int) -> list[Mixture]:
    """Every choice of `size` of the testbed's adapters."""
    return [Mixture(members) for members in combinations((*SKILLS, *STYLES), size)]


def shows(text: str, style: str, styles: Sequence[str]) -> bool:
    """Whether `text` has the form of some of `styles`, `style` among them."""
    others = [name for name in styles if name != style]
    every = chain.from_iterable(combinations(others, n) for n in range(len(others) + 1))
    return any(does_style(text, [style, *some]) for some in every)


def has_content(text: str, skill: str | None, word: str) -> bool:
    """Whether the content is exactly right, in whichever styles; without a skill it is the word itself."""
    if skill is not None:
        return does_skill(text, skill, word)
    every = chain.from_iterable(combinations(STYLES, n) for n in range(len(STYLES) + 1))
    return any(text == styled(word, some) for some in every)


def kept(mixture: Mixture, ask: Ask, n: int, seed: int) -> KeptShares:
    """What `ask`, greedy answers of a model that holds the mixture, shows of it on `n` prompts a skill."""
    each = [_kept_of(mixture, skill, ask, n, seed) for skill in mixture.skills or (None,)]
    members = {
        name: mean(found.members[name] for found in each if name in found.members) for name in mixture.members
    }
    return KeptShares(
        joint=mean(found.joint for found in each),
        content=mean(found.content for found in each),
        style=mean(found.style for found in each),
        members=members,
    )


def _kept_of(mixture: Mixture, skill: str | None, ask: Ask, n: int, seed: int) -> KeptShares:
    asked = prompts(n, seed, skill)
    pairs = list(zip(ask([text for text, _ in asked]), [word for _, word in asked], strict=True))
    styles = mixture.styles
    content = sum(has_content(text, skill, word) for text, word in pairs) / n
    members = {name: sum(shows(text, name, styles) for text, _ in pairs) / n for name in styles}
    return KeptShares(
        joint=sum(text == answer(skill, styles, word) for text, word in pairs) / n,
        content=content,
        style=sum(does_style(text, styles) for text, _ in pairs) / n if styles else 1.0,
        members=members if skill is None else {skill: content, **members},
    )
