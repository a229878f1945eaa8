"""Regular expressions that strangers wrote, with a bound on the time they can take.

`regex` reads them as `re` does, but can be told to stop.
"""

import time
from collections.abc import Callable

import regex  # type: ignore[import-untyped]

MAX_LENGTH = 4096
BUDGET_SECONDS = 2.0
"""Time one BoundedRegex may spend matching in all its life; ordinary adapters need some thousandths."""


class BadPattern(ValueError):
    """A pattern that is no regular expression, or that takes too long to match; the text says which."""


def compiled(pattern: str, written: str) -> "regex.Pattern[str]":
    """`pattern`, of which somebody wrote `written`. Raises BadPattern where it is no regular expression."""
    # "[[" is where `regex` and `re` part ways, and no module's name needs it.
    if len(written) > MAX_LENGTH or "[[" in written:
        raise BadPattern(f"the pattern {written[:60]!r} is too long or too intricate")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"{written[:60]!r} is not a regular expression: {error}") from error


class BoundedRegex:
    """One budget of time for all that is matched through it."""

    def __init__(self) -> None:
        self._left = BUDGET_SECONDS

    def match(self, match: Callable[..., "regex.Match[str] | None"], text: str) -> "regex.Match[str] | None":
        """`match` is a compiled pattern's `match` or `fullmatch`. Raises BadPattern once time is up."""
        start, found = time.perf_counter(), None
        try:
            if self._left > 0:
                found = match(text, timeout=self._left)
        except TimeoutError:
            self._left = 0.0
        self._left -= time.perf_counter() - start
        if self._left <= 0:
            raise BadPattern("it takes too long to match")
        return found
