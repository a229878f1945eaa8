"""Finds the metrics and labels that a PromQL expression names. Other syntax is refused."""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<range>\[[^\[\]]*\])
  | (?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?:ms|[smhdwy])?)
  | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
  | (?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^(){},<>=])
    )\s*""",
    re.VERBOSE,
)
AGGREGATIONS = {"sum", "avg", "min", "max", "count", "topk", "bottomk", "quantile", "stddev"}
FUNCTIONS = {
    "rate", "irate", "increase", "delta", "deriv", "changes", "resets", "predict_linear", "time",
    "histogram_quantile", "clamp_min", "clamp_max", "absent", "avg_over_time", "max_over_time",
}  # fmt: skip
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset"}
CLOSING = {")": "(", "}": "{"}


@dataclass
class Reading:
    """The metrics and labels that an expression uses."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    """Metric -> the labels of its selectors."""
    lists: set[str] = field(default_factory=set)
    """The labels in `by (...)` and similar clauses."""


def tokens_of(expression: str) -> list[tuple[str, str]]:
    """The (kind, text) of each token. Raises ValueError for other text and for unclosed brackets."""
    found, position, opened = [], 0, []
    while position < len(expression):
        match = TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"{expression[position : position + 20]!r} is no PromQL")
        kind = str(match.lastgroup)
        text = match[kind]
        if kind == "operator" and text in "({":
            opened.append(text)
        elif kind == "operator" and text in ")}" and (not opened or opened.pop() != CLOSING[text]):
            raise ValueError(f"{text} closes nothing in {expression!r}")
        found.append((kind, text))
        position = match.end()
    if opened:
        raise ValueError(f"{opened[-1]} is not closed in {expression!r}")
    return found


def read(expression: str) -> Reading:
    """Raises ValueError for an unknown function."""
    tokens, reading, index = tokens_of(expression), Reading(), 0
    while index < len(tokens):
        kind, text = tokens[index]
        after = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        index += 1
        if kind != "name" or text in OPERATORS:
            continue
        if text in LISTS:
            names, index = _until(tokens, index, ")")
            reading.lists.update(names)
        elif text in AGGREGATIONS and (after == "(" or after in LISTS):
            continue
        elif after == "(":
            if text not in FUNCTIONS:
                raise ValueError(f"{text} is no function of PromQL")
        else:
            labels = reading.metrics.setdefault(text, set())
            if after == "{":
                names, index = _until(tokens, index, "}")
                labels.update(names)
    return reading


def _until(tokens: list[tuple[str, str]], index: int, end: str) -> tuple[set[str], int]:
    names = set()
    while tokens[index][1] != end:
        if tokens[index][0] == "name":
            names.add(tokens[index][1])
        index += 1
    return names, index + 1
