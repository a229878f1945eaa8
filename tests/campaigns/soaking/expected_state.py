"""The expected state of the server: what its registry must contain, and what it must answer.

The registry follows from the changes that the server acknowledged. The answers were requested before the
soak. A name can change its version while a request runs, so every version of a name is kept with its time. An
answer is compared with the expected answer of the version in `x-lora-composition`, and that version must be
one that the name had during the request.
"""

import re
from dataclasses import dataclass, field
from time import monotonic

from lora_compose.benchmarks.serving.expected_answers import Expected

PARTNER = "polite"
CONTENTS = ("roll", "dbl", "code", "upper", "wrap", "okay", "bang")
KINDS = {
    "single": "{0}",
    "weighted": "{0}:0.7",
    "stack": "{0}+polite:0.5",
    "merge": "svd({0}+polite:0.5,rank=8)",
}
BASE = "base"
VERSION = re.compile(r"([A-Za-z0-9._-]+)@(\d+)")


@dataclass(frozen=True)
class Meaning:
    """From the start of a change on, a reference may mean version `number`. None means no version."""

    began: float
    ended: float
    number: int | None


@dataclass
class ExpectedState:
    """Everything that the server acknowledged. `history` also has removed versions."""

    truth: dict[tuple[str, str, int], Expected] = field(default_factory=dict)
    """Expected answers by kind, content and prompt."""
    history: dict[str, str] = field(default_factory=dict)
    """Content by `name@number`."""
    adapters: dict[str, dict[int, str]] = field(default_factory=dict)
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    compositions: set[str] = field(default_factory=set)
    meanings: dict[str, list[Meaning]] = field(default_factory=dict)

    def registered(self, name: str, number: int, content: str, began: float) -> None:
        """Record a registered version."""
        self.adapters.setdefault(name, {})[number] = content
        self.aliases.setdefault(name, {})
        self.history[f"{name}@{number}"] = content
        self._mean(f"{name}@{number}", began, number)
        self._mean(name, began, max(self.adapters[name]))

    def pointed(self, name: str, alias: str, number: int, began: float) -> None:
        """Record a moved alias."""
        self.aliases[name][alias] = number
        self._mean(f"{name}@{alias}", began, number)

    def removed(self, name: str, number: int, began: float) -> None:
        """Record a removed version. The aliases that point at it are removed too."""
        del self.adapters[name][number]
        self._mean(f"{name}@{number}", began, None)
        for alias in [alias for alias, at in self.aliases[name].items() if at == number]:
            del self.aliases[name][alias]
            self._mean(f"{name}@{alias}", began, None)
        self._mean(name, began, max(self.adapters[name], default=None))
        if not self.adapters[name]:
            del self.adapters[name], self.aliases[name]

    def _mean(self, reference: str, began: float, number: int | None) -> None:
        self.meanings.setdefault(reference, []).append(Meaning(began, monotonic(), number))

    def references(self) -> list[str]:
        """All references to registered versions, without those of the partner."""
        names = [name for name in self.adapters if name != PARTNER]
        found = [f"{name}@{number}" for name in names for number in self.adapters[name]]
        found += [f"{name}@{alias}" for name in names for alias in self.aliases[name]]
        return sorted([*found, *names])

    def could_mean(self, reference: str, sent: float, ended: float) -> set[int | None]:
        """The versions that a reference may have meant between `sent` and `ended`."""
        meanings = self.meanings.get(reference, [])
        ends = [following.ended for following in meanings[1:]] + [float("inf")]
        return {
            meaning.number
            for meaning, end in zip(meanings, ends, strict=True)
            if meaning.began <= ended and end >= sent
        }

    def registry(self) -> dict[str, object]:
        """The expected registry, in the form that `listed` reads from a server."""
        versions = sorted(f"{name}@{number}" for name, numbers in self.adapters.items() for number in numbers)
        aliases = sorted(
            f"{name}@{alias}={number}"
            for name, found in self.aliases.items()
            for alias, number in found.items()
        )
        return {"versions": versions, "aliases": aliases, "compositions": sorted(self.compositions)}


def adapter_version(canonical: str) -> str | None:
    """The version in a canonical name that does not belong to the partner. None for the base."""
    found = [f"{name}@{number}" for name, number in VERSION.findall(canonical) if name != PARTNER]
    return found[0] if found else None
