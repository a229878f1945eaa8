"""LoRA on CPUs: for each member of a batch its rows, two products, at the true rank.

Upstream's CPU ops gather one LoRA-B matrix per token, and index it with −1 for base rows, which silently
gives them the last slot's adapter. Here a row without an adapter is in no share and is never touched; and
since a request's weights are applied between the two products, a stack needs no factors of its own.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from lora_compose.server.engine.cpu.batch import Batch
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.layer_plan import Kernel, LayerPlan
from lora_compose.server.engine.cpu.packed_factors import Pack

Layer = int
"""`id` of a layer's stacked-A tuple, which it hands us with every call and which lives as long as it does."""
Member = Mapping[Layer, Pack]
"""One adapter, prepared."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's seam between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not at the top: vLLM walks all modules when a worker starts, and stumbles over one that numba loads.
        from lora_compose.server.engine.cpu.kernel import add_deltas

        self._kernel: Kernel = add_deltas
        self._batch: Batch | None = None
        self._members: list[Member] = []
        self._meter = Meter()
        self._plans: dict[Layer, LayerPlan | None] = {}

    def begin_batch(self, batch: Batch, members: Callable[[str], Member], meter: Meter) -> None:
        """The rows to come. `members` gives an adapter of the store, by its directory."""
        self._meter = meter
        self._batch = batch if batch.shares else None
        self._members = [members(share.member) for share in batch.shares]
        self._plans = {}

    @override
    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Slots say nothing here: `begin_batch` does."""

    @override
    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """`y[rows] += w (x[rows] Aᵀ) Bᵀ` for each share; `scale` is 1 by construction (see `stacking`)."""
        if self._batch is None:
            return
        layer = id(lora_a_stacked)
        if layer not in self._plans:
            self._plans[layer] = self._plan(layer, self._batch, y.dtype)
        plan = self._plans[layer]
        if plan is None:
            return
        if not self._meter.is_on:
            plan.add_deltas(y, x)
            return
        began = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - began

    def _plan(self, layer: Layer, batch: Batch, dtype: torch.dtype) -> LayerPlan | None:
        packs = [member.get(layer) for member in self._members]
        return LayerPlan(batch, packs, dtype, self._kernel) if any(packs) else None
