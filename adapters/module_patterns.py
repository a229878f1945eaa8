"""Finds the pattern key that PEFT applies to a module, with a bound on the time a hostile pattern can take.

The rule is `peft.utils.other.get_pattern_key`: keys are regular expressions matched, in order, against the
end of a module name from a dot on; the first that matches wins. Plain names, of which EVA writes one for each
module, are looked up instead.
"""

from collections.abc import Iterable

import regex  # type: ignore[import-untyped]

from adapters.bounded_regex import BadPattern, BoundedRegex, compiled

MAX_KEYS = 4096
MAX_KEY_LENGTH = 512

_NAME = regex.compile(r"[\w.-]+")


class ModulePatterns:
    """The keys of one `rank_pattern` or `alpha_pattern`. Answers are remembered, so asking again is free."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Raises BadPattern for a key that does not compile, or for too many or too long keys."""
        self._keys = tuple(keys)
        if len(self._keys) > MAX_KEYS:
            raise BadPattern(f"it has {len(self._keys)} keys; at most {MAX_KEYS} are read")
        self._names: dict[tuple[int, ...], dict[str, int]] = {}
        self._patterns: list[tuple[int, regex.Pattern[str]]] = []
        for order, key in enumerate(self._keys):
            if _NAME.fullmatch(key):
                self._names.setdefault(_dots(key), {}).setdefault(key, order)
            else:
                self._patterns.append((order, _compile(key)))
        self._found: dict[str, str | None] = {}
        self._bounded = BoundedRegex()

    def key_for(self, module: str) -> str | None:
        """The first key that matches `module`, None where none does. Raises BadPattern once time is up."""
        if module not in self._found:
            order = self._match(module, self._look_up(module))
            # PEFT falls back to the name itself, which may be a key that does not match itself as a pattern.
            fallback = module if module in self._keys else None
            self._found[module] = fallback if order == len(self._keys) else self._keys[order]
        return self._found[module]

    def _look_up(self, module: str) -> int:
        """Place of the first plain name that matches, or the number of keys. Its dots match anything."""
        best = len(self._keys)
        for dots, names in self._names.items():
            start = len(module) - dots[0]
            if start < 0 or (start > 0 and module[start - 1] != "."):
                continue
            end = list(module[start:])
            for position in dots[1:]:
                end[position] = "."
            best = min(best, names.get("".join(end), best))
        return best

    def _match(self, module: str, best: int) -> int:
        """Place of the first pattern that matches and comes before `best`, else `best`."""
        for order, pattern in self._patterns:
            if order > best:
                break
            try:
                matched = self._bounded.match(pattern.match, module)
            except BadPattern as error:
                raise BadPattern(f"the key {self._keys[order][:60]!r}: {error}") from error
            if matched:
                return order
        return best


def _dots(key: str) -> tuple[int, ...]:
    """The key's length, then where its dots are: keys alike in this are looked up at once."""
    return (len(key), *(position for position, character in enumerate(key) if character == "."))


def _compile(key: str) -> "regex.Pattern[str]":
    # "(?" is where a key's groups would mix with the rule's own, and no module's name needs it.
    if len(key) > MAX_KEY_LENGTH or "(?" in key:
        raise BadPattern(f"the key {key[:60]!r} is too long or too intricate a pattern")
    return compiled(rf"(.*\.)?({key})$", key)
