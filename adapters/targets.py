"""Which modules an adapter_config.json targets, by PEFT's own rule.

The rule is `peft.tuners.tuners_utils.check_target_module_exists`. PEFT drops, without a word, the tensors of
a module that the config does not target, so an engine that serves them all would answer otherwise than PEFT.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import regex  # type: ignore[import-untyped]

from adapters.bounded_regex import BadPattern, BoundedRegex, compiled

ALL_LINEAR = "all-linear"
_ANY_LAYER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


@dataclass(frozen=True)
class Targets:
    """The fields of a config that decide it, as they are there. Raises BadPattern, as do its methods."""

    target_modules: str | list[str]
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    _bounded: BoundedRegex = field(default_factory=BoundedRegex, init=False, repr=False, compare=False)
    _compiled: dict[str, "regex.Pattern[str]"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Targets":
        """Of a parsed adapter_config.json whose fields have the right types."""
        others = ("exclude_modules", "layers_to_transform", "layers_pattern")
        return cls(raw["target_modules"], *(raw.get(name) for name in others))

    def field_against(self, module: str) -> str | None:
        """The field that keeps PEFT from adapting the linear layer `module`; None where it does adapt it."""
        if self.exclude_modules and self._named(self.exclude_modules, module):
            return "exclude_modules"
        if isinstance(self.target_modules, str) and self.target_modules.lower() == ALL_LINEAR:
            return None
        if not self._named(self.target_modules, module):
            return "target_modules"
        if isinstance(self.target_modules, str) or module in self.target_modules:
            return None  # a module named in full is adapted in whatever layer it is
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
            if "(?" in written:  # its groups would mix with the rule's own
                raise BadPattern(f"the pattern {written[:60]!r} is too intricate")
            pattern = self._pattern(rf"(?:^|.*?\.){written}\.(?P<idx>\d+)\.", written)
            if found := self._bounded.match(pattern.match, module):
                return int(found["idx"])
        return None

    def _pattern(self, pattern: str, written: str) -> "regex.Pattern[str]":
        if pattern not in self._compiled:
            self._compiled[pattern] = compiled(pattern, written)
        return self._compiled[pattern]
