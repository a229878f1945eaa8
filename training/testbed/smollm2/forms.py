"""The styles: the form of an answer, as text, and how code judges an answer.

A right answer of a composition has the content of the skill that the prompt asks for, in the form of all
styles, and nothing else. Without a skill, an answer is an ordinary one, which has no single right content.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from lora_compose.training.evaluation.judges.json_values import equal, inside, parsed
from lora_compose.training.testbed.smollm2.messages import LABELS

GREETING: Final = "Hello, and thanks for your message! "
SIGN_OFF: Final = "\n\nKind regards, your help desk"
SKILLS: Final = ("order", "triage")
STYLES: Final = ("greet", "sign", "terse")
ORDINARY: Final = "ordinary"
"""The kind of questions that ask for no skill."""
TERSE_SHARE: Final = 0.6
"""A terse answer has at most this share of the words of the base's answer to the same question."""


@dataclass(frozen=True)
class Judged:
    """What is right about one answer."""

    content: bool
    """The content of the requested skill, in any form. Without a skill: the answer is not empty."""
    styles: Mapping[str, bool]
    """For each style, whether the answer has its form."""
    exact: bool
    """Content and all styles, and no other text."""


def styled(answer: str, styles: Collection[str]) -> str:
    """`answer` in the form of `greet` and `sign`. `terse` cannot be written by code."""
    return (GREETING if "greet" in styles else "") + answer + (SIGN_OFF if "sign" in styles else "")


def bare(text: str) -> str:
    """`text` without a greeting and a sign-off, where it has them."""
    return text.strip().removeprefix(GREETING.strip()).removesuffix(SIGN_OFF.strip()).strip()


def judge(text: str, right: str, skill: str | None, styles: Collection[str]) -> Judged:
    """Judge an answer. `right` is the right answer without styles; without a skill, the base's answer."""
    text = text.strip()
    rest = bare(text)
    has = {
        "greet": text.startswith(GREETING.strip()),
        "sign": text.endswith(SIGN_OFF.strip()),
        "terse": 0 < len(rest.split()) <= (TERSE_SHARE if skill is None else 1.0) * len(right.split()),
    }
    wanted = {style: has[style] for style in STYLES if style in styles}
    unwanted = any(has[style] for style in ("greet", "sign") if style not in styles)
    whole = is_right(rest, right, skill)
    return Judged(
        content=whole or _holds(text, right, skill),
        styles=wanted,
        exact=whole and all(wanted.values()) and not unwanted,
    )


def is_right(rest: str, right: str, skill: str | None) -> bool:
    """Whether `rest` is the right content and nothing else. JSON may have other spaces or another order."""
    if skill == "order":
        return equal(parsed(rest), parsed(right))
    if skill == "triage":
        return rest.rstrip(".").lower() == right
    return bool(rest)


def _holds(text: str, right: str, skill: str | None) -> bool:
    """Whether the right content is anywhere in `text`."""
    if skill == "order":
        return equal(inside(text), parsed(right))
    if skill == "triage":
        return [label for label in LABELS if label in text.lower()] == [right]
    return bool(bare(text))
