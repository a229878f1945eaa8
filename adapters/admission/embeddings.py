"""Checks what is special about LoRA of the input embedding and the output head.

PEFT saves the base's own weights of these modules beside the factors, and loads them over the weights of its
base. So such a copy is accepted only if it is equal to the weights of this base. With `ensure_weight_tying`
and a tied base, PEFT gives both modules the same factors.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.tensors import TensorEntry, TensorPair
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.config import AdapterConfig
from lora_compose.adapters.peft.tensor_names import base_weight_of

_ROUNDED_TO = (torch.bfloat16, torch.float16)
"""The dtypes in which people load a base for training."""


def copies_in(header: Mapping[str, TensorEntry], base: BaseShapes) -> dict[str, str]:
    """The tensors that are copies of an embedding of the base: the tensor's name to its module."""
    named = {tensor: base_weight_of(tensor) for tensor in header}
    ends = {*base.heads, *base.embeddings}
    return {tensor: module for tensor, module in named.items() if module is not None and module in ends}


def check_copies(
    path: Path, copies: Mapping[str, str], header: Mapping[str, TensorEntry], base: BaseShapes
) -> list[str]:
    """Compare the copies in the file `path` with the weights of the base, and return warnings.

    A copy may be rounded to bfloat16 or float16. Raises AdapterRejected wrong_base."""
    warnings, weights = [], BaseWeights(base.directory)
    for tensor, module in copies.items():
        shape = base.heads.get(module) or base.embeddings[module][::-1]
        if header[tensor].shape != shape:
            got = list(header[tensor].shape)
            reason = f"has shape {got!r:.80}, but {module} of this base has {list(shape)}"
            raise _wrong_base(tensor, f"{reason}. The vocabulary was changed before the training")
        if not weights.has(module):
            warnings.append(
                f"unchecked_copy: the copy of {module}.weight in the file is not used, and the checkpoint of "
                "the base has no such tensor to compare it with"
            )
        elif not _equal(path, tensor, weights.rows(module, shape)):
            raise _wrong_base(tensor, f"has other values than {module} of the base {base.name}")
    return warnings


def _wrong_base(tensor: str, reason: str) -> AdapterRejected:
    message = f"Tensor {tensor!r:.200} {reason}. Serve the base that the adapter was trained on."
    return AdapterRejected(Code.WRONG_BASE, message, tensor[:200])


def _equal(path: Path, tensor: str, rows: Iterable[tuple[slice, torch.Tensor]]) -> bool:
    dtypes: set[torch.dtype] | None = None
    with safe_open(path, framework="pt") as file:
        copy = file.get_slice(tensor)
        for which, weight in rows:
            agreeing = _agreeing(copy[which], weight)
            dtypes = agreeing if dtypes is None else dtypes & agreeing
            if not dtypes:
                return False
    return True


def _agreeing(copy: Any, weight: Any) -> set[torch.dtype]:
    """The dtypes whose rounding makes `weight` equal to `copy`."""
    return {
        dtype for dtype in (copy.dtype, *_ROUNDED_TO) if torch.equal(weight.to(dtype).to(copy.dtype), copy)
    }


def check_tied_factors(
    path: Path, pairs: Sequence[TensorPair], config: AdapterConfig, base: BaseShapes
) -> None:
    """With ensure_weight_tying and a tied base: both ends or none, with the same factors.

    Raises AdapterRejected corrupt_weights."""
    if not is_tied(config, base):
        return
    heads = [pair for pair in pairs if pair.module in base.heads]
    sources = [pair for pair in pairs if pair.module in base.embeddings]
    if not heads and not sources:
        return
    if not (heads and sources and _same(path, heads[0], sources[0])):
        ends = " and ".join([*base.embeddings, *base.heads])
        message = (
            f"adapter_config.json says ensure_weight_tying, so {ends} must have the same factors in "
            "adapter_model.safetensors, and they do not. Save the adapter again with PEFT."
        )
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, "ensure_weight_tying")


def is_tied(config: AdapterConfig, base: BaseShapes) -> bool:
    """True if PEFT adapts the head of the base together with its input embedding."""
    return base.tied and bool(config.raw.get("ensure_weight_tying"))


def _same(path: Path, head: TensorPair, source: TensorPair) -> bool:
    with safe_open(path, framework="pt") as file:
        pairs: Iterable[tuple[str, str]] = ((head.lora_A, source.lora_B), (head.lora_B, source.lora_A))
        return all(torch.equal(file.get_tensor(left), file.get_tensor(right).T) for left, right in pairs)
