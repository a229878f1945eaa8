"""The judge `numeric`: whether the last number of an answer is the right one.

Thousands separators, decimal commas, signs, currencies, percent signs and simple fractions are understood.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import regex  # type: ignore[import-untyped]

from lora_compose.training.evaluation.judges.judge import Options
from lora_compose.training.evaluation.judges.question import Question

_SIGNS: Final = "+\\-\u2212"
_CURRENCY: Final = "$€£¥₩₹"
_SPACES: Final = " \u00a0\u2009\u202f"
_NUMBER: Final = regex.compile(
    rf"(?<before>(?:(?<![A-Za-z\d)])[{_SIGNS}])?(?:(?<currency>[{_CURRENCY}])[{_SIGNS}]?)?)"
    r"(?<![A-Za-z_\d]|\d[.,])"
    rf"(?<digits>\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?:[.,]\d+)?(?!\d)|\d(?:[\d.,'’_]*\d)?|\.\d+)"
    r"(?<power>[eE][+-]?\d+|\s?[×x*]\s?10\^\{?(?<exponent>[+-]?\d+)\}?)?"
    r"(?:(?<!/\d+)/(?<divisor>\d+)(?![\d/]))?"
    rf"\s?(?<unit>[%°{_CURRENCY}]|[^\W\d_]+)?"
)
_FRACTION: Final = regex.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


@dataclass(frozen=True)
class Number:
    """A number in a text, and the currency before it or the word after it."""

    value: float
    unit: str


def near(question: Question, answer: str, options: Options) -> float:
    """1 if the last number of the answer is the last number of the right answer, within the tolerance.

    `tolerance` is absolute, `relative` is a share of the right number. With `units` = same, the units must
    be equal too. Raises ValueError for bad options.
    """
    right, found = last_number(question.answer), last_number(answer)
    if right is None or found is None:
        return 0.0
    if options.get("units") == "same" and right.unit != found.unit:
        return 0.0
    absolute = _size("tolerance", options)
    relative = max(_size("relative", options), 1e-9)
    return float(abs(found.value - right.value) <= max(absolute, relative * abs(right.value)) + 1e-12)


def check_number(question: Question, options: Options) -> None:
    """Raises ValueError if the right answer has no number, or an option is bad."""
    if last_number(question.answer) is None:
        raise ValueError(f"the right answer has no number: {question.answer!r:.80}")
    _size("tolerance", options)
    _size("relative", options)
    if options.get("units", "ignored") not in ("ignored", "same"):
        raise ValueError(f"units must be ignored or same, not {options['units']!r}")


def last_number(text: str) -> Number | None:
    """The last number of a text, or None."""
    return next(iter(deque(_numbers(text), maxlen=1)), None)


def _numbers(text: str) -> Iterator[Number]:
    for match in _NUMBER.finditer(_FRACTION.sub(r"\1/\2", text)):
        value = _value(match["digits"])
        if value is None:
            continue
        exponent = match["exponent"] or (match["power"] or "e0").lstrip("eE")
        value = _scaled(value, int(exponent), int(match["divisor"] or 1))
        if value is not None and math.isfinite(value):
            is_negative = any(sign in match["before"] for sign in "-\u2212")
            yield Number(-value if is_negative else value, _unit(match["currency"] or match["unit"] or ""))


def _scaled(value: float, exponent: int, divisor: int) -> float | None:
    if divisor == 0 or abs(exponent) > 300:
        return None
    return value * 10.0**exponent / divisor


def _value(digits: str) -> float | None:
    """The value of digits with separators, None if they are a date or a version such as 1.2.3."""
    plain = regex.sub(rf"[{_SPACES}'’_]", "", digits)
    dots, commas = plain.count("."), plain.count(",")
    if dots and commas:
        decimal = max(".,", key=plain.rfind)
        whole, _, part = plain.rpartition(decimal)
        return float(f"{regex.sub('[.,]', '', whole)}.{part}") if decimal not in whole else None
    separator = "," if commas else "."
    groups = plain.split(separator)
    in_threes = 0 < len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
    if (commas or dots > 1) and in_threes and groups[0] != "0":
        return float("".join(groups))
    if len(groups) <= 2:
        return float(".".join(groups))
    return float(groups[-1]) if commas else None


def _unit(text: str) -> str:
    folded = text.casefold()
    return folded[:-1] if len(folded) > 2 and folded.endswith("s") else folded


def _size(name: str, options: Options) -> float:
    value = options.get(name, 0.0)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a number of at least 0, not {value!r:.40}")
    return number
