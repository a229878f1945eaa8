"""The ways to serve that are compared, and the compositions each of them asks for.

`stack:4` is four adapters stacked by request, `merge:4` the same four merged into one beforehand, `fused:4`
the same four folded into the base, `residual:4` what the base's own requests get meanwhile; `vllm:4` and
`peft:4` serve the exact sum of the four, written as one adapter, by stock vLLM and by transformers + PEFT;
`direct` is the base behind vLLM's own app, with our plugin in the engine and none of our HTTP.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from adapters.errors import InvalidRequest

Kind = Literal["base", "single", "stack", "merge", "fused", "residual", "direct", "vllm", "peft"]
Serves = Literal["lora-compose", "direct", "vllm", "peft"]
KINDS: Final = get_args(Kind)
ALONE: Final = ("base", "single", "direct")
FUSED: Final = ("fused", "residual")
EXACT: Final = ("base", "direct", "single", "stack", "fused", "vllm", "peft")
"""Kinds that must answer as the exact stack of their members does, the base if there are none."""
NAME = re.compile(rf"({'|'.join(KINDS)})(?::([1-9][0-9]?))?(?:@r([1-9][0-9]{{0,2}}))?")


@dataclass(frozen=True)
class Arm:
    """`members` adapters served one way; `rank` where they were generated with it."""

    kind: Kind
    members: int
    rank: int | None = None

    @property
    def name(self) -> str:
        """As people write it: `stack:4`, `stack:2@r16`."""
        counted = self.kind if self.kind in ALONE else f"{self.kind}:{self.members}"
        return counted if self.rank is None else f"{counted}@r{self.rank}"

    @property
    def server(self) -> Serves:
        """Who answers it."""
        of: dict[str, Serves] = {"direct": "direct", "vllm": "vllm", "peft": "peft"}
        return of.get(self.kind, "lora-compose")


def parse_arm(text: str) -> Arm:
    """Raises InvalidRequest("invalid_arm")."""
    match = NAME.fullmatch(text.strip())
    if match is None or (match[1] in ALONE and match[2]):
        known = "base, direct, single, stack:K, merge:K, fused:K, residual:K, vllm:K, peft:K"
        raise InvalidRequest("invalid_arm", f"{text!r} is not an arm; there are {known}", "arms")
    kind: Kind = match[1]  # type: ignore[assignment]
    members = (
        0 if kind in {"base", "direct"} else int(match[2] or (1 if kind in {"single", "vllm", "peft"} else 2))
    )
    return Arm(kind, members, int(match[3]) if match[3] else None)


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Comma between. The base always comes first: the others are held against it."""
    arms = [parse_arm(part) for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys([Arm("base", 0), *arms]))


def choices(adapters: Sequence[str], members: int, count: int) -> list[tuple[str, ...]]:
    """`count` different sets of `members` adapters, the first of which are the first adapters.

    Raises InvalidRequest("too_few_adapters") where there are not so many."""
    found = list(itertools.islice(itertools.combinations(adapters, members), count))
    if len(found) < count:
        raise InvalidRequest(
            "too_few_adapters",
            f"{len(adapters)} adapters give {len(found)} sets of {members}; {count} are needed: "
            "give more --adapters or fewer --compositions",
            "adapters",
        )
    return found


def model_of(arm: Arm, base: str, members: Sequence[str], merge: str) -> str:
    """What a request to our server says as `model`. `merge` is a method with options: `ties,density=0.5`."""
    if arm.kind in {"base", "residual"}:
        return base
    joined = "+".join(members)
    if arm.kind != "merge":
        return joined
    method, _, options = merge.partition(",")
    return f"{method}({joined}{',' + options if options else ''})"
