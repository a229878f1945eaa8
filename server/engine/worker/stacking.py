"""Combines the components of a spec into one adapter, exactly and in factored form.

`Σ wᵢ·sᵢ·BᵢAᵢ = [w₁s₁B₁ | w₂s₂B₂ | …] · [A₁; A₂; …]`: concatenating the ranks is exact. Scaling and weight are
folded into B in float32 and rounded once to the serving dtype, so vLLM applies the result at scale 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.spec import Component

Stack = dict[str, PackedPair]
"""A `(Σr, d_in)` and B `(d_out, Σr)` of each module."""
Yielding = Callable[[Iterable[Any]], Iterator[Any]]
"""Iterates over the items of a loop. `iter` does not pause; `background_build.yielding` does."""


def stack_factors(
    loras: Sequence[Lora], weights: Sequence[float], dtype: torch.dtype, yielding: Yielding = iter
) -> Stack:
    """The weighted sum. A module that an adapter lacks counts as zero."""
    factors: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for lora, weight in zip(loras, weights, strict=True):
        for name, module in yielding(lora.modules.items()):
            rows, columns = factors.setdefault(name, ([], []))
            rows.append(module.lora_A.float())
            columns.append(module.lora_B.float() * (weight * module.scaling))
    return {
        name: PackedPair(lora_A=torch.cat(rows).to(dtype), lora_B=torch.cat(columns, dim=1).to(dtype))
        for name, (rows, columns) in yielding(factors.items())
    }


def load_stack(components: Sequence[Component], dtype: torch.dtype, yielding: Yielding = iter) -> Stack:
    """Read the components from the store, and combine them."""
    loras = [open_adapter(Path(component.directory)) for component in components]
    return stack_factors(loras, [component.weight for component in components], dtype, yielding)
