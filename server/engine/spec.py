"""The spec of a composition, as the engine gets it: component directories in our store, and their weights.

vLLM passes `LoRARequest.lora_path` from the API process to the workers unchanged, so the spec is sent in it
as text. The store's directories are immutable, so a worker can read them again at any time.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

SCHEME = "compose:"


@dataclass(frozen=True)
class Component:
    """An adapter directory of the store, and the weight of its delta in the sum."""

    directory: str
    weight: float
    rank: int = 0
    """Its largest rank. Only the server uses it; the workers read it from the tensors."""


def encode_spec(components: Sequence[Component]) -> str:
    """The text form, for `LoRARequest.lora_path`."""
    return SCHEME + json.dumps([[c.directory, c.weight] for c in components])


@lru_cache(maxsize=4096)
def decode_spec(lora_path: str) -> tuple[Component, ...]:
    """The components of a text form. Raises ValueError if the path is not a spec."""
    if not lora_path.startswith(SCHEME):
        raise ValueError(f"not a composition spec: {lora_path!r}")
    return tuple(
        Component(directory, float(weight)) for directory, weight in json.loads(lora_path[len(SCHEME) :])
    )


def components_of(lora_path: str | None) -> tuple[Component, ...]:
    """The components of a request's path; none for the base and for vLLM's dummy requests."""
    return decode_spec(lora_path) if is_spec(lora_path) else ()


def is_spec(lora_path: str | None) -> TypeGuard[str]:
    """False for the base, and for the requests that vLLM makes for runs without tokens."""
    return lora_path is not None and lora_path.startswith(SCHEME)


def combined(wanted: Iterable[Component], fused: Iterable[Component]) -> tuple[Component, ...]:
    """The residual `wanted − fused`: each adapter once, without weights of 0, in a canonical order.

    A request for `wanted` needs it while `fused` is in the base weights. Equal weights cancel exactly,
    because a composition's weights are always added in the same order.
    """
    members: dict[str, Component] = {}
    for component, sign in [*((c, 1) for c in wanted), *((c, -1) for c in fused)]:
        before = members.get(component.directory, Component(component.directory, 0.0, component.rank))
        members[component.directory] = Component(
            component.directory, before.weight + sign * component.weight, component.rank
        )
    return tuple(members[name] for name in sorted(members) if members[name].weight != 0)
