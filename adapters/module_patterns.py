"""Finds the pattern key that PEFT applies to a module, with a bound on the time a hostile pattern can take.

The rule is `peft.utils.other.get_pattern_key`: keys are regular expressions matched, in order, against the
end of a module name from a dot on; the first that matches wins. `regex` reads them as `re`, but can stop.
"""

import time
from collections.abc import Iterable

import regex  # type: ignore[import-untyped]

MAX_KEYS = 4096
MAX_KEY_LENGTH = 512
BUDGET_SECONDS = 2.0
"""Time one ModulePatterns may spend matching in all its life; ordinary adapters need some hundredths."""


class BadPattern(ValueError):
    """A key that is no regular expression, or that takes too long to match; the text says which."""


class ModulePatterns:
    """The keys of one `rank_pattern` or `alpha_pattern`. Answers are remembered, so asking again is free."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Raises BadPattern for a key that does not compile, or for too many or too long keys."""
        self._keys = {key: self._compile(key) for key in keys}
        if len(self._keys) > MAX_KEYS:
            raise BadPattern(f"it has {len(self._keys)} keys; at most {MAX_KEYS} are read")
        self._found: dict[str, str | None] = {}
        self._left = BUDGET_SECONDS

    @staticmethod
    def _compile(key: str) -> "regex.Pattern[str]":
        # "(?" and "[[" are where `regex` and `re` part ways, and no module's name needs them.
        if len(key) > MAX_KEY_LENGTH or "(?" in key or "[[" in key:
            raise BadPattern(f"the key {key[:60]!r} is too long or too intricate a pattern")
        try:
            return regex.compile(rf"(.*\.)?({key})$")
        except regex.error as error:
            raise BadPattern(f"the key {key[:60]!r} is not a regular expression: {error}") from error

    def key_for(self, module: str) -> str | None:
        """The first key that matches `module`, None where none does. Raises BadPattern once time is up."""
        if module not in self._found:
            start = time.perf_counter()
            self._found[module] = self._search(module, start + self._left)
            self._left -= time.perf_counter() - start
        return self._found[module]

    def _search(self, module: str, deadline: float) -> str | None:
        for key, pattern in self._keys.items():
            left = deadline - time.perf_counter()
            try:
                matched = left > 0 and pattern.match(module, timeout=left)
            except TimeoutError:
                left, matched = 0.0, False
            if left <= 0:
                raise BadPattern(f"the key {key[:60]!r} takes too long to match")
            if matched:
                return key
        # PEFT falls back to the name itself, which may be a key that does not match itself as a pattern.
        return module if module in self._keys else None
