"""The change that an adapter makes to a linear layer: low-rank factors, a factor for each row, and a bias.

DoRA (2402.09353) replaces W by `m / |W + c B A| * (W + c B A)`: c is the scaling, the norm is of each row and
m is `lora_magnitude_vector`. A trained adapter on one base has a fixed `s = m / |W + c B A|`, so

    W' = s * (W + c B A),  W' - W = (s - 1) * W + s * c B A,

where `*` multiplies each row. PEFT computes the same in the dtype of the model. Here the norm is computed in
float32 products and float64 sums, so results differ from PEFT's by its own rounding: by 1e-7 in float32, and
by up to 2^-9 of s in bfloat16.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule

Loop = Callable[[Iterable[Any]], Iterator[Any]]
"""Iterates over the items of a loop. It may pause between them; `iter` does not."""
MAX_SCALE = 1e4
"""Trained scales are near 1. A row of W + c B A that is nearly zero has a scale that is a rounding error."""


@dataclass(frozen=True, eq=False)
class LayerChange:
    """The layer's output changes by `row_change * (W x) + lora_B (lora_A x) + bias`."""

    lora_A: Tensor
    """(r, d_in)"""
    lora_B: Tensor
    """(d_out, r), with the scaling and the scale of each row folded in."""
    row_change: Tensor | None
    """(d_out,), s - 1; None without DoRA."""
    bias: Tensor | None
    """(d_out,), with the scaling folded in; None without lora_bias."""


def row_norms(module: LoraModule, rows: Iterable[tuple[slice, Tensor]]) -> Tensor:
    """`|W + c B A|` of each row, (d_out,) in float64. `rows` are those of W, from `BaseWeights`."""
    lora_A, lora_B = module.lora_A.float(), module.lora_B.float() * module.scaling
    norms = torch.empty(module.shape[0], dtype=torch.float64)
    for which, weight in rows:
        changed = torch.addmm(weight, lora_B[which], lora_A)
        norms[which] = torch.linalg.vector_norm(changed, dim=1, dtype=torch.float64)
    return norms


def row_scale(name: str, module: LoraModule, norms: Tensor) -> Tensor:
    """`s = m / |W + c B A|` of the DoRA module `name` with these `row_norms`, (d_out,) in float64.

    Raises AdapterRejected("non_finite_weights") if a scale is not finite or above MAX_SCALE."""
    assert module.magnitude is not None
    scale = module.magnitude.double() / norms
    largest = float(scale.abs().max())
    if not largest <= MAX_SCALE:
        raise AdapterRejected(
            Code.NON_FINITE_WEIGHTS,
            f"The DoRA scale lora_magnitude_vector / |W + scaling B A| of {name!r:.200} is {largest:.3g} in "
            f"a row, above {MAX_SCALE:g}. The adapter was trained on another base, or its training diverged.",
            "use_dora",
        )
    return scale


def row_scales(lora: Lora, base: BaseWeights, loop: Loop = iter) -> dict[str, Tensor]:
    """The scale of each DoRA module. Empty, without reading the base, if the adapter has none.

    Raises AdapterRejected: `unsupported_feature` if the base has no such weight, `non_finite_weights`."""
    return {
        name: row_scale(name, module, row_norms(module, loop(base.rows(name, module.shape))))
        for name, module in lora.modules.items()
        if module.magnitude is not None
    }


def layer_change(module: LoraModule, scale: Tensor | None, dtype: torch.dtype = torch.float32) -> LayerChange:
    """The change by a module whose `row_scale` is `scale` (None without DoRA), in `dtype`."""
    lora_B = module.lora_B.to(dtype) * module.scaling
    bias = None if module.bias is None else module.bias.to(dtype) * module.scaling
    if scale is None:
        return LayerChange(module.lora_A.to(dtype), lora_B, None, bias)
    return LayerChange(
        module.lora_A.to(dtype), lora_B * scale.to(dtype)[:, None], (scale - 1).to(dtype), bias
    )


def dora_module(name: str, change: LayerChange, weight: Tensor) -> LoraModule:
    """The DoRA module on `weight` (d_out, d_in) that makes `change`: the inverse of `layer_change`.

    With s = 1 + row_change, the factor is B / s and the magnitude `s |W + B A / s|`. A change without
    `row_change` has s = 1. Raises AdapterRejected("unsupported_feature") if a scale is nearly zero."""
    ones = torch.ones(len(change.lora_B), dtype=change.lora_B.dtype)
    scale = ones if change.row_change is None else 1 + change.row_change
    smallest = float(scale.abs().min())
    if smallest < 1 / MAX_SCALE:
        raise AdapterRejected(
            Code.UNSUPPORTED_FEATURE,
            f"The DoRA scale of the result is {smallest:.3g} in a row of {name!r:.200}. PEFT's DoRA cannot "
            "express a row without the base. Use method stack, or other weights.",
            "adapters",
        )
    lora_B = (change.lora_B / scale[:, None]).float()
    plain = LoraModule(change.lora_A.float(), lora_B, 1.0)
    norms = row_norms(plain, [(slice(0, len(weight)), weight)])
    return LoraModule(plain.lora_A, plain.lora_B, 1.0, magnitude=(scale.double() * norms).float())
