"""The judges `json` and `json-inside`: whether two JSON texts have the same value."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from lora_compose.training.evaluation.judges.judge import Options
from lora_compose.training.evaluation.judges.question import Question

MISSING: Final = object()
"""In place of the value of a text that is not JSON, because None is a value."""
_FENCED: Final = re.compile(r"```(?:json|JSON)?\s*\n(.*?)```", re.DOTALL)
_START: Final = re.compile(r"[{\[]")
MOST_STARTS: Final = 200
"""JSON inside an answer is looked for at this many brackets."""


def same_value(question: Question, answer: str, options: Options) -> float:
    """1 if the answer is JSON with the value of the right answer.

    The order of keys and space between tokens do not matter. 1 and 1.0 are equal, true and 1 are not.
    """
    found = _value_of(answer, options)
    return float(found is not MISSING and equal(found, parsed(question.answer)))


def same_leaves(question: Question, answer: str, options: Options) -> float:
    """How much of the values is equal: F1 over pairs of a path and a value that is not a container.

    0 if the answer is not JSON. The order of keys does not matter, the order of a list does.
    """
    found = _value_of(answer, options)
    if found is MISSING:
        return 0.0
    own, right = Counter(leaves(found)), Counter(leaves(parsed(question.answer)))
    return 2 * (own & right).total() / (own.total() + right.total())


def check_json(question: Question, options: Options) -> None:
    """Raises ValueError if the right answer is not JSON, or is no container and `inside` is set."""
    value = parsed(question.answer)
    if value is MISSING:
        raise ValueError(f"the right answer is not JSON: {question.answer!r:.80}")
    if options.get("inside") and not isinstance(value, dict | list):
        raise ValueError("the right answer must be a JSON object or list, to be found inside an answer")


def equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal. Python alone would say that True equals 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """(path, value) of each value that is not a container. An empty container counts as a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, str(value) if isinstance(value, bool | dict | list) else value


def _value_of(answer: str, options: Options) -> Any:
    return inside(answer) if options.get("inside") else parsed(answer)


def parsed(text: str) -> Any:
    """The value of a JSON text, MISSING if it is not JSON."""
    try:
        return json.loads(text.strip(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return MISSING


def inside(answer: str) -> Any:
    """The JSON object or list in an answer, or MISSING.

    That is the whole answer, the last fenced block, or the longest JSON text that begins at a bracket.
    """
    for text in (answer, *reversed(_FENCED.findall(answer))):
        value = parsed(text)
        if isinstance(value, dict | list):
            return value
    return _longest(answer)


def _longest(answer: str) -> Any:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    best, length, end = MISSING, 0, 0
    for start in [match.start() for match in _START.finditer(answer)][:MOST_STARTS]:
        if start < end:
            continue  # inside a value that was found
        try:
            value, stop = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        end = stop
        if stop - start > length:
            best, length = value, stop - start
    return best


def _refuse(name: str) -> NoReturn:
    """NaN and Infinity are not JSON, but Python's parser takes them."""
    raise ValueError(name)
