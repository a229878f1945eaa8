"""How much of each member of a mixture remains in the answers.

A mixture with skills gets prompts for each of its skills in turn. A mixture without skills gets prompts for
the word itself. The only right answer has the content of the requested skill and the form of all styles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import mean

from lora_compose.training.testbed.demo.table import does_skill, does_style
from lora_compose.training.testbed.language import STYLES, answer, prompts, styled
from lora_compose.training.testbed.mixtures import Mixture

Ask = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class AnswerShares:
    """Shares of answers, as means over the requested skills."""

    joint: float
    """Answers that are right in content and form."""
    content: float
    """Answers with the right content, in any form."""
    style: float
    """Answers with the right form, with any content. 1 if the mixture has no style."""
    members: dict[str, float]
    """For a skill: answers with its content, when it is requested.

    For a style: answers with its mark, also if other marks are present.
    """


def shows(text: str, style: str, styles: Sequence[str]) -> bool:
    """Whether `text` has the form of a subset of `styles` that contains `style`."""
    others = [name for name in styles if name != style]
    subsets = chain.from_iterable(combinations(others, n) for n in range(len(others) + 1))
    return any(does_style(text, [style, *subset]) for subset in subsets)


def has_content(text: str, skill: str | None, word: str) -> bool:
    """Whether the content is exactly right, in any styles.

    Without a skill, the content is the word itself.
    """
    if skill is not None:
        return does_skill(text, skill, word)
    subsets = chain.from_iterable(combinations(STYLES, n) for n in range(len(STYLES) + 1))
    return any(text == styled(word, subset) for subset in subsets)


def shares_of(mixture: Mixture, ask: Ask, n: int, seed: int) -> AnswerShares:
    """The shares of a model that has the mixture, over `n` prompts for each skill.

    `ask` gives its greedy answers.
    """
    by_skill = [_shares_of_skill(mixture, skill, ask, n, seed) for skill in mixture.skills or (None,)]
    members = {
        name: mean(shares.members[name] for shares in by_skill if name in shares.members)
        for name in mixture.members
    }
    return AnswerShares(
        joint=mean(shares.joint for shares in by_skill),
        content=mean(shares.content for shares in by_skill),
        style=mean(shares.style for shares in by_skill),
        members=members,
    )


def _shares_of_skill(mixture: Mixture, skill: str | None, ask: Ask, n: int, seed: int) -> AnswerShares:
    questions = prompts(n, seed, skill)
    pairs = list(zip(ask([text for text, _ in questions]), [word for _, word in questions], strict=True))
    styles = mixture.styles
    content = sum(has_content(text, skill, word) for text, word in pairs) / n
    members = {name: sum(shows(text, name, styles) for text, _ in pairs) / n for name in styles}
    return AnswerShares(
        joint=sum(text == answer(skill, styles, word) for text, word in pairs) / n,
        content=content,
        style=sum(does_style(text, styles) for text, _ in pairs) / n if styles else 1.0,
        members=members if skill is None else {skill: content, **members},
    )
