"""What the engine is told of a composition: component directories in our store, and weights.

vLLM hands `LoRARequest.lora_path` from the API process to the workers untouched, so the spec travels in it
as text. It names no file a worker could not read again: the store's directories are immutable.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

SCHEME = "compose:"


@dataclass(frozen=True)
class Component:
    """One adapter directory of the store and the weight its delta gets in the sum."""

    directory: str
    weight: float
    rank: int = 0
    """Its largest rank: for the server's sums; the workers see the tensors."""


def encode_spec(components: Sequence[Component]) -> str:
    """The text form, for `LoRARequest.lora_path`."""
    return SCHEME + json.dumps([[c.directory, c.weight] for c in components])


@lru_cache(maxsize=4096)
def decode_spec(lora_path: str) -> tuple[Component, ...]:
    """The components of a text form. Raises `ValueError` for a path that is not one."""
    if not lora_path.startswith(SCHEME):
        raise ValueError(f"not a composition spec: {lora_path!r}")
    return tuple(
        Component(directory, float(weight)) for directory, weight in json.loads(lora_path[len(SCHEME) :])
    )


def combined(wanted: Iterable[Component], fused: Iterable[Component]) -> tuple[Component, ...]:
    """`wanted − fused`, each adapter once, none of weight 0, in a canonical order.

    What a request for `wanted` still needs while `fused` is in the base weights. Equal weights cancel
    exactly, since a composition's weights are added up in one order.
    """
    members: dict[str, Component] = {}
    for component, sign in [*((c, 1) for c in wanted), *((c, -1) for c in fused)]:
        before = members.get(component.directory, Component(component.directory, 0.0, component.rank))
        members[component.directory] = Component(
            component.directory, before.weight + sign * component.weight, component.rank
        )
    return tuple(members[name] for name in sorted(members) if members[name].weight != 0)
