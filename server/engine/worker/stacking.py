"""Combines the components of a spec into one change of each layer, exactly and in factored form.

`Σ wᵢ·sᵢ·BᵢAᵢ = [w₁s₁B₁ | w₂s₂B₂ | …] · [A₁; A₂; …]`: concatenating the ranks is exact. Scaling and weight are
folded into B in float32 and rounded once to the serving dtype, so vLLM applies the result at scale 1. DoRA's
changes of rows and the biases are vectors, whose weighted sums are exact too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.adapters.peft.dora import layer_change, row_scales
from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.spec import Component


class StackedModule(NamedTuple):
    """The layer's output changes by `row_change * (W x) + lora_B (lora_A x) + bias`.

    Use names, not positions."""

    lora_A: torch.Tensor
    """`(Σr, d_in)`."""
    lora_B: torch.Tensor
    """`(d_out, Σr)`."""
    row_change: torch.Tensor | None
    """`(d_out,)`, float32; None without DoRA."""
    bias: torch.Tensor | None
    """`(d_out,)`, float32; None without `lora_bias`."""


Stack = dict[str, StackedModule]
Yielding = Callable[[Iterable[Any]], Iterator[Any]]
"""Iterates over the items of a loop. `iter` does not pause; `background_build.yielding` does."""
Scales = dict[str, torch.Tensor]
"""The scales of the rows of each DoRA module of an adapter, float64."""


def stack_factors(
    loras: Sequence[tuple[Lora, Scales]],
    weights: Sequence[float],
    dtype: torch.dtype,
    yielding: Yielding = iter,
) -> Stack:
    """The weighted sum. A module that an adapter lacks counts as zero."""
    parts: dict[str, list[StackedModule]] = {}
    for (lora, scales), weight in zip(loras, weights, strict=True):
        for name, module in yielding(lora.modules.items()):
            change = layer_change(module, scales.get(name))
            parts.setdefault(name, []).append(
                StackedModule(
                    lora_A=change.lora_A,
                    lora_B=change.lora_B * weight,
                    row_change=None if change.row_change is None else change.row_change * weight,
                    bias=None if change.bias is None else change.bias * weight,
                )
            )
    return {name: _sum(modules, dtype) for name, modules in yielding(parts.items())}


def _sum(modules: Sequence[StackedModule], dtype: torch.dtype) -> StackedModule:
    return StackedModule(
        lora_A=torch.cat([module.lora_A for module in modules]).to(dtype),
        lora_B=torch.cat([module.lora_B for module in modules], dim=1).to(dtype),
        row_change=_total([module.row_change for module in modules]),
        bias=_total([module.bias for module in modules]),
    )


def _total(vectors: Iterable[torch.Tensor | None]) -> torch.Tensor | None:
    found = [vector for vector in vectors if vector is not None]
    return torch.stack(found).sum(dim=0) if found else None


def factors_only(module: StackedModule) -> PackedPair:
    """The factors of a module without vectors."""
    return PackedPair(lora_A=module.lora_A, lora_B=module.lora_B)


def rank_of(stack: Stack) -> int:
    """The largest rank of a module; 1 without modules."""
    return max((module.lora_A.shape[0] for module in stack.values()), default=1)


class AdapterReader:
    """Reads adapters from the store, with the scales of their rows on one base.

    The scales of a DoRA adapter need all weights of its modules, so those of the last adapters are kept."""

    KEPT = 16
    """At 8B, the scales of one adapter take 11 MB."""

    def __init__(self, base: BaseWeights) -> None:
        self.base = base
        self._scales: dict[str, Scales] = {}

    def load_stack(
        self, components: Sequence[Component], dtype: torch.dtype, yielding: Yielding = iter
    ) -> Stack:
        """Read the components, and combine them.

        Raises AdapterRejected if an adapter cannot be read or does not fit the base."""
        loras = [open_adapter(Path(component.directory)) for component in components]
        pairs = [
            (lora, self._scales_of(component.directory, lora, yielding))
            for component, lora in zip(components, loras, strict=True)
        ]
        return stack_factors(pairs, [component.weight for component in components], dtype, yielding)

    def _scales_of(self, directory: str, lora: Lora, yielding: Yielding) -> Scales:
        if not lora.has_dora:
            return {}
        scales = self._scales.pop(directory, None) or row_scales(lora, self.base, yielding)
        self._scales[directory] = scales
        while len(self._scales) > self.KEPT:
            self._scales.pop(next(iter(self._scales)), None)
        return scales
