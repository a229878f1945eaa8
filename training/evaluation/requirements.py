"""Requirements on scores, such as `domain>=0.9,forgetting<=0.02`, that a model must meet before it is
published.

A requirement on a score that was not measured is an error. It is never met.
"""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lora_compose.adapters.errors import CommandCode, InvalidRequest

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_REQUIREMENT = re.compile(r"\s*([A-Za-z][\w:./+@-]*?)\s*(>=|<=|>|<)\s*(\S+)\s*", re.ASCII)


@dataclass(frozen=True)
class Requirement:
    """One bound on one score."""

    score: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.score}{self.operator}{self.bound:g}"

    def is_met_by(self, value: float) -> bool:
        """Whether `value` meets the requirement. NaN does not, because it could not be measured."""
        return OPERATORS[self.operator](value, self.bound)


def parse_requirements(text: str) -> tuple[Requirement, ...]:
    """The requirements in `text`, separated by commas. All must be met.

    Raises InvalidRequest("invalid_requirement") for a part, or an empty text, that is not like
    `score>=number`.
    """
    return tuple(_requirement(part) for part in text.split(","))


def unmet(requirements: Sequence[Requirement], scores: Mapping[str, float]) -> list[str]:
    """A message for each requirement that is not met, in order. Empty if all are met.

    Raises InvalidRequest("unknown_score") if a score was not measured.
    """
    check_known(requirements, scores)
    return [
        f"{requirement} is not met: {requirement.score} is {scores[requirement.score]:.4g}"
        for requirement in requirements
        if not requirement.is_met_by(scores[requirement.score])
    ]


def check_known(requirements: Sequence[Requirement], known: Collection[str]) -> None:
    """Check that every score is among the `known` ones. Raises InvalidRequest("unknown_score")."""
    unknown = sorted({requirement.score for requirement in requirements} - set(known))
    if unknown:
        listed = ", ".join(sorted(known)) or "none"
        message = f"{', '.join(unknown)} was not measured. The measured scores are: {listed}"
        raise InvalidRequest(CommandCode.UNKNOWN_SCORE, message, "require")


def check_directions(requirements: Sequence[Requirement], lower_is_better: Collection[str]) -> None:
    """Check that no requirement asks for a high loss.

    Raises InvalidRequest("invalid_requirement"), with the requirement that was probably meant.
    """
    for requirement in requirements:
        if requirement.score in lower_is_better and ">" in requirement.operator:
            meant = f"{requirement.score}{requirement.operator.replace('>', '<')}{requirement.bound:g}"
            message = f"{requirement}: {requirement.score} is a loss, so lower is better. Write {meant}"
            raise InvalidRequest(CommandCode.INVALID_REQUIREMENT, message, "require")


def _requirement(part: str) -> Requirement:
    match = _REQUIREMENT.fullmatch(part)
    bound = _number(match[3]) if match else None
    if match is None or bound is None:
        message = (
            f"{part.strip()!r:.60} is not a requirement. Write, for example, domain>=0.9 or forgetting<=0.02"
        )
        raise InvalidRequest(CommandCode.INVALID_REQUIREMENT, message, "require")
    return Requirement(match[1], match[2], bound)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
