"""Judges that compare texts: the same text, a text inside the answer, a regular expression."""

from collections.abc import Sequence
from typing import Final

import regex  # type: ignore[import-untyped]

from lora_compose.training.evaluation.judges.judge import Options
from lora_compose.training.evaluation.judges.question import Question

SECONDS: Final = 2.0
"""A search for a regular expression may take this long."""


def exact(question: Question, answer: str, options: Options) -> float:
    """1 if the answer is the right answer, except for space around it."""
    return float(_folded(answer.strip(), options) == _folded(question.answer.strip(), options))


def contains_all(question: Question, answer: str, options: Options) -> float:
    """1 if the answer contains each of the wanted texts."""
    return float(all(_found(question, answer, options)))


def contains_any(question: Question, answer: str, options: Options) -> float:
    """1 if the answer contains one of the wanted texts."""
    return float(any(_found(question, answer, options)))


def wanted(question: Question, options: Options) -> list[str]:
    """The texts of the column `contains`; without it, the right answer, or its lines if `lines` is set.

    Raises ValueError if the list is empty, or has something else than texts.
    """
    listed = options.get("contains")
    if listed is None:
        answer = question.answer.strip()
        listed = answer.splitlines() if options.get("lines") else [answer]
    texts = [listed] if isinstance(listed, str) else listed
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("contains must be a text or a list of texts")
    kept = [text.strip() for text in texts if text.strip()]
    if not kept:
        raise ValueError("there is no text that the answer should contain")
    return kept


def check_wanted(question: Question, options: Options) -> None:
    """Raises ValueError as `wanted` does, and for an unknown value of `case`."""
    check_case(question, options)
    wanted(question, options)


def check_case(_question: Question, options: Options) -> None:
    """Raises ValueError for an unknown value of `case`."""
    if options.get("case", "match") not in ("match", "ignore"):
        raise ValueError(f"case must be match or ignore, not {options['case']!r}")


def _found(question: Question, answer: str, options: Options) -> list[bool]:
    text = _folded(answer, options)
    return [_folded(part, options) in text for part in wanted(question, options)]


def _folded(text: str, options: Options) -> str:
    return text.casefold() if options.get("case") == "ignore" else text


def matches(question: Question, answer: str, options: Options) -> float:
    """1 if the pattern is found in the answer: the column `pattern`, or the right answer itself.

    Raises ValueError if the pattern is not valid, or the search takes more than SECONDS.
    """
    try:
        return float(_pattern(question, options).search(answer, timeout=SECONDS) is not None)
    except TimeoutError as error:
        raise ValueError(f"the search for the regular expression took more than {SECONDS:g} s") from error


def check_pattern(question: Question, options: Options) -> None:
    """Raises ValueError if the pattern is not valid."""
    _pattern(question, options)


def _pattern(question: Question, options: Options) -> "regex.Pattern[str]":
    text = options.get("pattern", question.answer)
    if not isinstance(text, str) or not text:
        raise ValueError("the regular expression is empty or not a text")
    try:
        return regex.compile(text)
    except regex.error as error:
        raise ValueError(f"{text!r:.80} is not a valid regular expression: {error}") from error
