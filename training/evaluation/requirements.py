"""What a model must reach before it may be published: `domain>=0.9,forgetting<=0.02`.

Pure: text in, reasons out. Which scores there are is the caller's to say; a name among none of them is an
error and never a requirement that holds.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lora_compose.adapters.errors import CommandCode, InvalidRequest

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_REQUIREMENT = re.compile(r"\s*([A-Za-z][\w:./-]*?)\s*(>=|<=|>|<)\s*(\S+)\s*", re.ASCII)


@dataclass(frozen=True)
class Requirement:
    """One bound on one score."""

    score: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.score}{self.operator}{self.bound:g}"

    def holds(self, value: float) -> bool:
        """Never for NaN: what could not be measured has not been reached."""
        return OPERATORS[self.operator](value, self.bound)


def parse_requirements(text: str) -> tuple[Requirement, ...]:
    """The bounds in `text`, separated by commas, all of which must hold.

    Raises InvalidRequest("invalid_requirement") for a part that is not `score>=number`, or nothing at all."""
    return tuple(_requirement(part) for part in text.split(","))


def unmet(requirements: Sequence[Requirement], scores: Mapping[str, float]) -> list[str]:
    """Why each requirement that does not hold does not, in the order given; empty where all hold.

    Raises InvalidRequest("unknown_score") for a score that was not measured, before any is compared."""
    unknown = sorted({each.score for each in requirements} - set(scores))
    if unknown:
        known = ", ".join(sorted(scores)) or "no score at all"
        message = f"{', '.join(unknown)} was not measured, so nothing can be required of it; there is {known}"
        raise InvalidRequest(CommandCode.UNKNOWN_SCORE, message, "require")
    return [
        f"{each} does not hold: {each.score} is {scores[each.score]:.4g}"
        for each in requirements
        if not each.holds(scores[each.score])
    ]


def _requirement(part: str) -> Requirement:
    match = _REQUIREMENT.fullmatch(part)
    bound = _number(match[3]) if match else None
    if match is None or bound is None:
        message = f"{part.strip()!r:.60} is not a requirement: write one as domain>=0.9 or forgetting<=0.02"
        raise InvalidRequest(CommandCode.INVALID_REQUIREMENT, message, "require")
    return Requirement(match[1], match[2], bound)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
