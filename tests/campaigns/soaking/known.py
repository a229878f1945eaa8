"""What the server must hold, by its own acknowledgements, and what it must answer, asked before all began.

Names move while requests are on their way, so everything a name meant is kept with the time it could mean it;
an answer is held to the version that its `x-lora-composition` names, and that version to the name's history.
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
    """From when a change was begun, a reference may mean version `number`; None: nothing."""

    begun: float
    done: float
    number: int | None


@dataclass
class Known:
    """Everything acknowledged. `history` never forgets."""

    truth: dict[tuple[str, str, int], Expected] = field(default_factory=dict)
    """By kind, content and prompt."""
    history: dict[str, str] = field(default_factory=dict)
    """Content by `name@number`."""
    adapters: dict[str, dict[int, str]] = field(default_factory=dict)
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    compositions: set[str] = field(default_factory=set)
    meanings: dict[str, list[Meaning]] = field(default_factory=dict)

    def registered(self, name: str, number: int, content: str, begun: float) -> None:
        """A version was acknowledged."""
        self.adapters.setdefault(name, {})[number] = content
        self.aliases.setdefault(name, {})
        self.history[f"{name}@{number}"] = content
        self._mean(f"{name}@{number}", begun, number)
        self._mean(name, begun, max(self.adapters[name]))

    def pointed(self, name: str, alias: str, number: int, begun: float) -> None:
        """An alias was moved."""
        self.aliases[name][alias] = number
        self._mean(f"{name}@{alias}", begun, number)

    def removed(self, name: str, number: int, begun: float) -> None:
        """A version was, and with it the aliases that pointed at it."""
        del self.adapters[name][number]
        self._mean(f"{name}@{number}", begun, None)
        for alias in [alias for alias, at in self.aliases[name].items() if at == number]:
            del self.aliases[name][alias]
            self._mean(f"{name}@{alias}", begun, None)
        self._mean(name, begun, max(self.adapters[name], default=None))
        if not self.adapters[name]:
            del self.adapters[name], self.aliases[name]

    def _mean(self, reference: str, begun: float, number: int | None) -> None:
        self.meanings.setdefault(reference, []).append(Meaning(begun, monotonic(), number))

    def references(self) -> list[str]:
        """Every way to name what is there, but for the partner."""
        names = [name for name in self.adapters if name != PARTNER]
        found = [f"{name}@{number}" for name in names for number in self.adapters[name]]
        found += [f"{name}@{alias}" for name in names for alias in self.aliases[name]]
        return sorted([*found, *names])

    def could_mean(self, reference: str, sent: float, ended: float) -> set[int | None]:
        """What a reference may have meant at some time between."""
        meanings = self.meanings.get(reference, [])
        ends = [following.done for following in meanings[1:]] + [float("inf")]
        return {
            meaning.number
            for meaning, end in zip(meanings, ends, strict=True)
            if meaning.begun <= ended and end >= sent
        }

    def registry(self) -> dict[str, object]:
        """As `listed` reads it from a server."""
        versions = sorted(f"{name}@{number}" for name, numbers in self.adapters.items() for number in numbers)
        aliases = sorted(
            f"{name}@{alias}={number}"
            for name, found in self.aliases.items()
            for alias, number in found.items()
        )
        return {"versions": versions, "aliases": aliases, "compositions": sorted(self.compositions)}


def the_other(canonical: str) -> str | None:
    """The version in a canonical name that is not the partner's; None for the base."""
    found = [f"{name}@{number}" for name, number in VERSION.findall(canonical) if name != PARTNER]
    return found[0] if found else None
