"""The names of the tensors that PEFT writes for LoRA, DoRA and LoRA with biases.

A linear layer has `<module>.lora_A.weight` (r, d_in) and `<module>.lora_B.weight` (d_out, r), and perhaps
`<module>.lora_B.bias` or `<module>.lora_magnitude_vector` (d_out,). An embedding of V tokens in d dimensions
has `<module>.lora_embedding_A` (r, V) and `<module>.lora_embedding_B` (d, r).

The state dict of a model has the name of the adapter after `lora_A`, as in `lora_A.default.weight`. PEFT's
save_pretrained leaves it out, and PEFT ignores tensors that have it. Here it is left out while reading, if
all tensors of the file have the same name.

PEFT also writes the base's own weights of the input embedding and the output head beside their factors. These
copies are not part of the adapter.
"""

import re
from collections.abc import Collection
from typing import Literal, NamedTuple

PREFIX = "base_model.model."
Part = Literal["A", "B", "bias", "magnitude"]
_ENDS: dict[str, tuple[Part, bool]] = {
    "lora_A.weight": ("A", False),
    "lora_B.weight": ("B", False),
    "lora_B.bias": ("bias", False),
    "lora_magnitude_vector": ("magnitude", False),
    "lora_magnitude_vector.weight": ("magnitude", False),
    "lora_embedding_A": ("A", True),
    "lora_embedding_B": ("B", True),
}
"""The end of a tensor's name -> the part of a module, and whether only embeddings have it."""
_NAME = re.compile(
    rf"{re.escape(PREFIX)}(?P<module>.+)\.(?P<kind>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))"
    r"(?:\.(?P<adapter>(?!(?:weight|bias)$)[\w-]+))?(?P<rest>\.weight|\.bias)?"
)
_BASE_WEIGHT = re.compile(
    rf"{re.escape(PREFIX)}(?:(.+)\.base_layer|((?:.+\.)?(?:embed_tokens|lm_head)))\.weight"
)


class TensorName(NamedTuple):
    """What the name of a tensor says: the part of `module` that it is."""

    module: str
    part: Part
    embedding: bool
    """True for a factor of an embedding."""
    adapter: str | None = None
    """The name of the adapter, which only the state dict of a model has."""


def parse_name(tensor: str) -> TensorName | None:
    """The module and the part that `tensor` names, or None if it names something else."""
    found = _NAME.fullmatch(tensor)
    if found is None:
        return None
    adapter, end = found["adapter"], found["kind"] + (found["rest"] or "")
    # Only a state dict has the magnitude as a layer, which has a weight.
    is_layer = end == "lora_magnitude_vector.weight"
    if end not in _ENDS or (found["kind"] == "lora_magnitude_vector" and is_layer != (adapter is not None)):
        return None
    return TensorName(found["module"], *_ENDS[end], adapter)


def several_adapters(adapters: Collection[str | None]) -> str | None:
    """Why the tensors of a file, with these names of adapters, are not one adapter; None if they are."""
    if len(adapters) < 2:
        return None
    named = ", ".join(sorted(repr(name) if name else "one without a name" for name in adapters))
    return f"it has tensors of {len(adapters)} adapters: {named:.200}. Save one adapter in a file"


def base_weight_of(tensor: str) -> str | None:
    """The module whose own weight in the base `tensor` is a copy of, or None if it is not such a copy."""
    found = _BASE_WEIGHT.fullmatch(tensor)
    return None if found is None else found[1] or found[2]


def factor_names(module: str, embedding: bool) -> tuple[str, str]:
    """PEFT's names for the factors A and B of `module`."""
    if embedding:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
