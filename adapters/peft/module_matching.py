"""Matches module names as PEFT does, with a time limit, because the patterns come from untrusted files.

`ModulePatterns` finds the key of `rank_pattern` or `alpha_pattern` for a module. The rule is
`peft.utils.other.get_pattern_key`: keys are regular expressions, matched in order against the end of the
module name after a dot. The first match wins. Plain names are looked up in a dict, because EVA writes one for
each module.

`TargetedModules` decides whether a config targets a module. The rule is
`peft.tuners.tuners_utils.check_target_module_exists`. PEFT ignores the tensors of a module that the config
does not target, so an engine that serves them would give other results than PEFT.

The library `regex` is used, because it reads patterns like `re` and has timeouts.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex  # type: ignore[import-untyped]

MAX_LENGTH = 4096
BUDGET_SECONDS = 2.0
"""Total time that one BoundedRegex may use. Ordinary adapters need a few milliseconds."""


class BadPattern(ValueError):
    """A pattern is not a regular expression or takes too long to match. The error text has the reason."""


# `re` reads these as plain text, and `regex` as a nested set or an approximate match.
_READ_DIFFERENTLY = re.compile(r"\[\[|\{[a-z]")


def compiled(pattern: str, written: str) -> "regex.Pattern[str]":
    """Compile `pattern`, which contains the user's text `written`. Raises BadPattern.

    It must be a pattern for `re` too, which PEFT uses. `regex` knows more."""
    if len(written) > MAX_LENGTH or _READ_DIFFERENTLY.search(written):
        raise BadPattern(f"the pattern {written[:60]!r} is too long or too complex")
    try:
        re.compile(pattern)
        return regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"{written[:60]!r} is not a regular expression: {error}") from error


class BoundedRegex:
    """Limits the total time of all matches made with it."""

    def __init__(self) -> None:
        self._left = BUDGET_SECONDS

    def match(self, match: Callable[..., "regex.Match[str] | None"], text: str) -> "regex.Match[str] | None":
        """Call `match`, a pattern's `match` or `fullmatch`. Raises BadPattern if the time is used up."""
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


MAX_KEYS = 4096
MAX_KEY_LENGTH = 512

_NAME = regex.compile(r"[\w.-]+")


class ModulePatterns:
    """The keys of one `rank_pattern` or `alpha_pattern`. Results are cached for each module."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Raises BadPattern if a key does not compile or is too long, or if there are too many keys."""
        self._keys = tuple(keys)
        if len(self._keys) > MAX_KEYS:
            raise BadPattern(f"it has {len(self._keys)} keys, but at most {MAX_KEYS} are allowed")
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
        """The first key that matches `module`, or None. Raises BadPattern if the time is used up."""
        if module not in self._found:
            order = self._match(module, self._look_up(module))
            # PEFT then uses the name itself as a key. Such a key may not match itself as a pattern.
            fallback = module if module in self._keys else None
            self._found[module] = fallback if order == len(self._keys) else self._keys[order]
        return self._found[module]

    def _look_up(self, module: str) -> int:
        """Index of the first plain name that matches, or the number of keys. Its dots match any character."""
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
        """Index of the first pattern that matches and comes before `best`, or else `best`."""
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
    """The key's length and the positions of its dots. Keys that agree in these share one dict."""
    return (len(key), *(position for position, character in enumerate(key) if character == "."))


def _compile(key: str) -> "regex.Pattern[str]":
    if len(key) > MAX_KEY_LENGTH:
        raise BadPattern(f"the key {key[:60]!r} is too long")
    return compiled(rf"(.*\.)?({key})$", key)


ALL_LINEAR = "all-linear"
_ANY_LAYER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


@dataclass(frozen=True)
class TargetedModules:
    """The fields of a config that decide which modules are targeted. The methods raise BadPattern."""

    target_modules: str | list[str]
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    _bounded: BoundedRegex = field(default_factory=BoundedRegex, init=False, repr=False, compare=False)
    _compiled: dict[str, "regex.Pattern[str]"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "TargetedModules":
        """The fields of a parsed adapter_config.json, whose types are checked already."""
        others = ("exclude_modules", "layers_to_transform", "layers_pattern")
        return cls(raw["target_modules"], *(raw.get(name) for name in others))

    def excluding_field(self, module: str, in_all_linear: bool = True) -> str | None:
        """The field that excludes the layer `module`, or None if PEFT adapts the layer.

        `in_all_linear` is False for embeddings and for the output head, which "all-linear" leaves out."""
        if self.exclude_modules and self._named(self.exclude_modules, module):
            return "exclude_modules"
        if isinstance(self.target_modules, str) and self.target_modules.lower() == ALL_LINEAR:
            return None if in_all_linear else "target_modules"
        if not self._named(self.target_modules, module):
            return "target_modules"
        if isinstance(self.target_modules, str) or module in self.target_modules:
            return None  # the full name of a module ignores layers_to_transform
        return None if self._in_layers(module) else "layers_to_transform"

    def _named(self, names: str | list[str], module: str) -> bool:
        if isinstance(names, str):
            return self._bounded.match(self._pattern(names, names).fullmatch, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in names)

    def _in_layers(self, module: str) -> bool:
        if self.layers_to_transform is None or self.layers_to_transform == []:
            return True
        layer = self._layer(module)
        if isinstance(self.layers_to_transform, list):
            return layer in self.layers_to_transform
        return layer == self.layers_to_transform

    def _layer(self, module: str) -> int | None:
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        if not self.layers_pattern or patterns is None:
            found = _ANY_LAYER.match(module)
            return int(found["idx"]) if found else None
        for written in patterns:
            pattern = self._pattern(rf"(?:^|.*?\.){written}\.(?P<idx>\d+)\.", written)
            if found := self._bounded.match(pattern.match, module):
                return int(found["idx"])
        return None

    def _pattern(self, pattern: str, written: str) -> "regex.Pattern[str]":
        if pattern not in self._compiled:
            self._compiled[pattern] = compiled(pattern, written)
        return self._compiled[pattern]
