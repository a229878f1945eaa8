"""The demo's arms: what each asks the server for, and the two things an answer can get right.

Every arm is asked the same prompts, the skill's. So the base and the styles alone are shown failing at the
skill, and the skill alone at the style: only where both are combined can both be right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Any, Final, Literal

from training.testbed.tasks import STYLES, answer, styled

SKILL: Final = "roll"


@dataclass(frozen=True)
class Arm:
    """One way to name a composition in a request, and the styles to look for in what it answers."""

    label: str
    model: str | None = None
    """None is the base."""
    styles: tuple[str, ...] = ("upper",)
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request."""
    kind: Literal["single", "stack", "merge"] = "single"
    """A stack or merge holds the skill and the styles, so its answers should be right in both."""


ARMS: Final = (
    Arm("base"),
    Arm("roll", "roll"),
    Arm("upper", "upper"),
    Arm("polite", "polite", ("polite",)),
    Arm("roll+upper", "roll+upper", kind="stack"),
    Arm("roll+polite", "roll+polite", ("polite",), kind="stack"),
    Arm("roll+upper+polite", "roll+upper+polite", ("upper", "polite"), kind="stack"),
    Arm(
        "adapters: [roll, upper × 0.9]",
        body={"adapters": [{"name": "roll"}, {"name": "upper", "weight": 0.9}]},
        kind="stack",
    ),
    Arm("svd(roll+upper,rank=8)", "svd(roll+upper,rank=8)", kind="merge"),
    Arm("ties(roll+upper,density=0.5)", "ties(roll+upper,density=0.5)", kind="merge"),
)
ADAPTERS: Final = ("roll", "upper", "polite")


def does_skill(text: str, skill: str, word: str) -> bool:
    """Whether the content is exactly right, in whichever styles it is written."""
    every = chain.from_iterable(combinations(STYLES, n) for n in range(len(STYLES) + 1))
    return any(text == answer(skill, styles, word) for styles in every)


def does_style(text: str, styles: Sequence[str]) -> bool:
    """Whether the form is exactly that of `styles`, whatever the content."""
    before, after = styled("\0", styles).split("\0")
    content = text.removeprefix(before).removesuffix(after)
    return bool(content) and text == styled(content.lower(), styles)


def does_both(text: str, skill: str, styles: Sequence[str], word: str) -> bool:
    """Whether it is the one right answer."""
    return text == answer(skill, styles, word)
