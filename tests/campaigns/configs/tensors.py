"""Weights files as other tools and interrupted saves leave them: changes of a file that PEFT wrote."""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
PREFIX = "base_model.model."


def _renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda given: {name.replace(old, new): tensor for name, tensor in given.items()}


def _cast(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda given: {name: tensor.to(dtype) for name, tensor in given.items()}


def _kept(part: str) -> Callable[[Tensors], Tensors]:
    return lambda given: {name: tensor for name, tensor in given.items() if part in name}


def _half(given: Tensors) -> Tensors:
    return dict(list(given.items())[: len(given) // 2])


def _mixed(given: Tensors) -> Tensors:
    return {name: t.to((torch.float16, torch.float32)[n % 2]) for n, (name, t) in enumerate(given.items())}


ACCEPTED: dict[str, Callable[[Tensors], Tensors]] = {
    "as it is": dict,
    "float16": _cast(torch.float16),
    "bfloat16": _cast(torch.bfloat16),
    "float64": _cast(torch.float64),
    "mixed dtypes": _mixed,
    "one layer": _kept("layers.0."),
    "attention only": _kept("self_attn"),
    "another order": lambda given: dict(reversed(given.items())),
}
IGNORED_BY_PEFT: dict[str, Callable[[Tensors], Tensors]] = {
    "no prefix": _renamed(PREFIX, ""),
    "only base_model.": _renamed(PREFIX, "base_model."),
    "headless": _renamed(f"{PREFIX}model.", PREFIX),
    "inside a vision model": _renamed(f"{PREFIX}model.", f"{PREFIX}language_model.model."),
    "inside a vision model, new style": _renamed(f"{PREFIX}model.", f"{PREFIX}model.language_model."),
    "torch.compile": _renamed(PREFIX, f"{PREFIX}_orig_mod."),
    "torch.compile, outside": _renamed(PREFIX, f"_orig_mod.{PREFIX}"),
    "DDP": _renamed(PREFIX, f"module.{PREFIX}"),
    "FSDP": _renamed("layers.", "layers._fsdp_wrapped_module."),
    "wrapped twice": _renamed(PREFIX, PREFIX * 2),
    "kohya": lambda given: _renamed("lora_A", "lora_down")(_renamed("lora_B", "lora_up")(given)),
    "MLX": lambda given: {
        name
        .replace(PREFIX, "")
        .replace("lora_A.weight", "lora_a")
        .replace("lora_B.weight", "lora_b"): t.T.contiguous()
        for name, t in given.items()
    },
    "GGUF": _renamed(f"{PREFIX}model.layers.", "blk."),
}
"""PEFT finds no factor in them, and its model is the base."""
FOUND_IN_PART: dict[str, Callable[[Tensors], Tensors]] = {
    "another layer": _renamed("layers.0.", "layers.99."),
    "a tensor of another tool": lambda given: given | {"hello": torch.ones(2)},
}
"""PEFT loads these and says nothing of the rest."""
NAMED: dict[str, Callable[[Tensors], Tensors]] = {
    name: _renamed(".weight", f".{name}.weight") for name in ("default", "sql")
}
"""A whole `state_dict()`, by the name of its adapter. PEFT finds only the name that it loads the file as."""
