"""The names of the tensors that PEFT writes for plain LoRA.

A linear layer has `<module>.lora_A.weight` (r, d_in) and `<module>.lora_B.weight` (d_out, r). An embedding of
V tokens in d dimensions has `<module>.lora_embedding_A` (r, V) and `<module>.lora_embedding_B` (d, r).

PEFT also writes the base's own weights of the input embedding and the output head beside their factors. These
copies are not part of the adapter.
"""

import re
from typing import NamedTuple

PREFIX = "base_model.model."
_FACTOR = re.compile(rf"{re.escape(PREFIX)}(.+)\.lora_(?:([AB])\.weight|embedding_([AB]))")
_BASE_WEIGHT = re.compile(
    rf"{re.escape(PREFIX)}(?:(.+)\.base_layer|((?:.+\.)?(?:embed_tokens|lm_head)))\.weight"
)


class Factor(NamedTuple):
    """What the name of a tensor says: the factor "A" or "B" of `module`."""

    module: str
    factor: str
    embedding: bool
    """True for a factor of an embedding."""


def factor_of(tensor: str) -> Factor | None:
    """The factor that `tensor` names, or None if it names something else."""
    found = _FACTOR.fullmatch(tensor)
    if found is None:
        return None
    return Factor(found[1], found[2] or found[3], embedding=found[3] is not None)


def base_weight_of(tensor: str) -> str | None:
    """The module whose own weight in the base `tensor` is a copy of, or None if it is no such copy."""
    found = _BASE_WEIGHT.fullmatch(tensor)
    return None if found is None else found[1] or found[2]


def factor_names(module: str, embedding: bool) -> tuple[str, str]:
    """PEFT's names for the factors A and B of `module`."""
    if embedding:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
