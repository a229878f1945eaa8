"""The shapes of the layers of a base model that adapters may change, its fingerprint and its names.

The model is built on torch's meta device from config.json alone, and its weights are not loaded. A quantized
checkpoint gives the shapes of the layers that it represents. An 8B model takes a moment and no memory. Code
from the checkpoint is not run.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lora_compose.adapters.admission.fingerprint import fingerprint

_LAYER = re.compile(r"(.*?\.[0-9]+)\.")


@dataclass(frozen=True)
class BaseShapes:
    """The shapes that an adapter must fit: a module's name to (d_out, d_in) of its factors' product."""

    linears: dict[str, tuple[int, int]]
    """The linear layers but the output head, such as "model.layers.0.self_attn.q_proj"."""
    fingerprint: str
    """See `adapters.admission.fingerprint`."""
    name: str
    heads: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The output head, such as "lm_head": (V, d) for V tokens. Empty if it is not a linear layer."""
    embeddings: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The input embedding, such as "model.embed_tokens": (d, V), as PEFT stores its factors."""
    tied: bool = False
    """True if the head has the weight of the input embedding."""
    directory: Path = Path()
    """The checkpoint, whose weights DoRA needs, and copies of which are compared."""
    other_names: frozenset[str] = frozenset()
    """Further names by which an adapter's config may name this base: of its directory or on the Hub."""
    model_type: str | None = None
    """`model_type` of the base's config, such as "llama"."""
    others: frozenset[str] = frozenset()
    """The modules to which PEFT cannot apply LoRA: norms, activations, blocks, lists of blocks."""

    @classmethod
    def of(cls, model_dir: Path, name: str) -> "BaseShapes":
        """Read a Hugging Face causal LM directory. Raises OSError or ValueError if it is not one."""
        model = _skeleton(model_dir)
        source, head = model.get_input_embeddings(), model.get_output_embeddings()
        linears: dict[str, tuple[int, int]] = {}
        heads: dict[str, tuple[int, int]] = {}
        embeddings: dict[str, tuple[int, int]] = {}
        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                (heads if module is head else linears)[path] = (module.out_features, module.in_features)
            elif isinstance(module, torch.nn.Embedding) and module is source:
                embeddings[path] = (module.embedding_dim, module.num_embeddings)
        others = frozenset(
            path for path, module in model.named_modules() if path and not isinstance(module, _adaptable())
        )
        return cls(
            linears,
            fingerprint(model_dir),
            name,
            heads=heads,
            embeddings=embeddings,
            tied=bool(head is not None and head.weight is source.weight),
            directory=model_dir,
            other_names=names_of(model_dir),
            model_type=model.config.model_type,
            others=others,
        )

    @cached_property
    def modules(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of every module that an adapter may change."""
        return {**self.linears, **self.heads, **self.embeddings}

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The repeated blocks, in order: "model.layers.0", "model.layers.1", ..."""
        found = (layer_of(module) for module in self.linears)
        return tuple(dict.fromkeys(layer for layer in found if layer is not None))


def layer_of(module: str) -> str | None:
    """The block of a module: "model.layers.0" for "model.layers.0.mlp.up_proj". None outside all blocks."""
    match = _LAYER.match(module)
    return match[1] if match else None


def names_of(model_dir: Path) -> frozenset[str]:
    """The name of the directory. In the Hub's cache, also the last part of the repository's name."""
    parts = model_dir.absolute().parts
    repositories = (part.rpartition("--")[2] for part in parts if part.startswith("models--"))
    return frozenset({model_dir.absolute().name, model_dir.resolve().name, *repositories})


def _adaptable() -> tuple[type[torch.nn.Module], ...]:
    """The classes of modules to which PEFT applies LoRA."""
    from transformers.pytorch_utils import Conv1D

    layers = torch.nn
    convolutions = (layers.Conv1d, layers.Conv2d, layers.Conv3d, Conv1D)
    return layers.Linear, layers.Embedding, layers.MultiheadAttention, *convolutions


def _skeleton(model_dir: Path) -> Any:
    # transformers takes seconds to import, and users of the types in this file do not need it.
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
