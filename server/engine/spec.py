"""What the engine is told of a composition: component directories in our store, and weights.

vLLM hands `LoRARequest.lora_path` from the API process to the workers untouched, so the spec travels in it
as text. It names no file a worker could not read again: the store's directories are immutable.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

SCHEME = "compose:"


@dataclass(frozen=True)
class Component:
    """One adapter directory of the store and the weight its delta gets in the sum."""

    directory: str
    weight: float


def encode_spec(components: Sequence[Component]) -> str:
    """The text form, for `LoRARequest.lora_path`."""
    return SCHEME + json.dumps([[c.directory, c.weight] for c in components])


def decode_spec(lora_path: str) -> list[Component]:
    """The components of a text form. Raises `ValueError` for a path that is not one."""
    if not lora_path.startswith(SCHEME):
        raise ValueError(f"not a composition spec: {lora_path!r}")
    return [Component(directory, weight) for directory, weight in json.loads(lora_path[len(SCHEME) :])]
