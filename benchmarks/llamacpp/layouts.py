"""What llama.cpp expects of each architecture that can be written for it.

llama.cpp rotates pairs of neighbours in the architecture `llama`, and the two halves of a head in the others.
transformers always rotates the two halves. So the rows of the query and key projections of `llama` are
reordered, as llama.cpp's own conversion does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map

from lora_compose.adapters.errors import CommandCode, LoraComposeError

LLAMA: Final = MODEL_ARCH.LLAMA
ARCHITECTURES: Final[Mapping[str, MODEL_ARCH]] = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": MODEL_ARCH.QWEN3,
}
"""The architectures of transformers that can be written, with llama.cpp's names."""


@dataclass(frozen=True)
class Layout:
    """Where the tensors of one base go in llama.cpp's file, and in which order their rows are."""

    config: Mapping[str, Any]
    """The base's config.json."""
    architecture: MODEL_ARCH = field(init=False)

    def __post_init__(self) -> None:
        names = self.config.get("architectures") or ["no architecture"]
        known = ARCHITECTURES.get(names[0])
        if known is None:
            raise cannot_write(f"The base is a {names[0]}. Known are {', '.join(ARCHITECTURES)}")
        kind = self.rope.get("rope_type", self.rope.get("type", "default"))
        if kind != "default":
            raise cannot_write(f"The base scales its positions ({kind})")
        if self.config.get("quantization_config"):
            raise cannot_write("The base is quantized")
        object.__setattr__(self, "architecture", known)

    @classmethod
    def of(cls, base: Path) -> "Layout":
        """The layout of the base in a directory. Raises LoraComposeError("llamacpp_unavailable")."""
        try:
            return cls(json.loads((base / "config.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise cannot_write(f"{base} has no readable config.json") from error

    @property
    def name(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(MODEL_ARCH_NAMES[self.architecture])

    @property
    def rope(self) -> Mapping[str, Any]:
        """How positions are encoded. transformers before version 5 writes `rope_theta` and `rope_scaling`."""
        older = {"rope_theta": self.config.get("rope_theta"), **(self.config.get("rope_scaling") or {})}
        found: Mapping[str, Any] = self.config.get("rope_parameters") or older
        return found

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return int(self.config["num_attention_heads"])

    @property
    def key_heads(self) -> int:
        """Number of key and value heads."""
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    @cached_property
    def _names(self) -> TensorNameMap:
        return get_tensor_name_map(self.architecture, int(self.config["num_hidden_layers"]))

    def tensor(self, name: str) -> str:
        """llama.cpp's name of a tensor of the checkpoint. Raises LoraComposeError("llamacpp_unavailable")."""
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise cannot_write(f"The architecture {self.name} has no place for {name}")
        return found

    def module(self, name: str) -> str:
        """llama.cpp's name of the weight of a module, such as `blk.0.attn_q.weight`."""
        return self.tensor(f"{name}.weight")

    def rows(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of a weight, a bias or a lora_B of the tensor or module `name` in llama.cpp's order."""
        if self.architecture is not LLAMA:
            return tensor
        for projection, heads in (("q_proj", self.heads), ("k_proj", self.key_heads)):
            if f".{projection}" in name:
                halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
                return halves.transpose(1, 2).reshape(tensor.shape)
        return tensor


def cannot_write(reason: str) -> LoraComposeError:
    """The refusal of a base or an adapter that llama.cpp cannot be given."""
    return LoraComposeError(
        CommandCode.LLAMACPP_UNAVAILABLE,
        f"The llamacpp arms cannot be measured: {reason}. Leave them out of --arms.",
    )
