"""Carries DoRA's changes of rows and the biases through vLLM's own packing and slicing of LoRA factors.

vLLM joins the factors of packed layers and gives each worker its slice of lora_B's rows. The vectors have one
entry for each of these rows too, so they travel as two more ranks: zeros in lora_A, the vectors in lora_B.
The product of the factors stays the same.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.nn import functional

from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.cpu.row_terms import RowTerms
from lora_compose.server.engine.worker.stacking import StackedModule

VECTORS = 2


def with_vectors(module: StackedModule) -> PackedPair:
    """The factors with the change of rows and the bias as the last two ranks. A missing one is zero."""
    zero = torch.zeros(len(module.lora_B), dtype=module.lora_B.dtype)
    vectors = [zero if v is None else v.to(zero.dtype) for v in (module.row_change, module.bias)]
    return PackedPair(
        lora_A=functional.pad(module.lora_A, (0, 0, 0, VECTORS)),
        lora_B=torch.cat([module.lora_B, torch.stack(vectors, dim=1)], dim=1),
    )


def split_vectors(
    factors: Sequence[PackedPair | None],
    widths: Sequence[int],
    base_bias: torch.Tensor | None,
    adds_bias: bool,
) -> tuple[list[PackedPair | None], RowTerms]:
    """Undo `with_vectors` for the slices of a layer: the factors, and the vectors of all slices together.

    `adds_bias` is false in a worker that adds no biases. A slice without factors keeps its rows."""
    starts = [0, *accumulate(widths)]
    change, bias = torch.zeros(starts[-1]), torch.zeros(starts[-1])
    plain: list[PackedPair | None] = []
    for pair, start, width in zip(factors, starts[:-1], widths, strict=True):
        if pair is None:
            plain.append(None)
            continue
        rank = len(pair.lora_A) - VECTORS
        change[start : start + width] = pair.lora_B[:, rank].float()
        if adds_bias:
            bias[start : start + width] = pair.lora_B[:, rank + 1].float()
        plain.append(PackedPair(lora_A=pair.lora_A[:rank], lora_B=pair.lora_B[:, :rank]))
    return plain, RowTerms(change, bias, base_bias)
