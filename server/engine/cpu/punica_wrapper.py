"""LoRA on CPUs: two products for the rows of each member of a batch, at the member's true rank.

Upstream's CPU ops gather one LoRA-B matrix per token and index it with −1 for base rows. That silently
applies the last slot's adapter to them. Here a row without an adapter is in no share and is never changed.
The weights of a request are applied between the two products, so a stack needs no factors of its own.
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
"""`id` of a layer's stacked-A tuple. The layer passes it with every call and keeps it alive."""
Member = Mapping[Layer, Pack]
"""One prepared adapter."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's interface between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Imported here: when a worker starts, vLLM inspects all modules and fails at one that numba imports.
        from lora_compose.server.engine.cpu.kernel import add_deltas

        self._kernel: Kernel = add_deltas
        self._batch: Batch | None = None
        self._members: list[Member] = []
        self._meter = Meter()
        self._plans: dict[Layer, LayerPlan | None] = {}

    def begin_batch(self, batch: Batch, members: Callable[[str], Member], meter: Meter) -> None:
        """Set the next batch. `members` returns an adapter of the store by its directory."""
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
        """Unused: `begin_batch` sets the batch, and slots are not used."""

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
        """`y[rows] += w (x[rows] Aᵀ) Bᵀ` for each share. `scale` is always 1 (see `stacking`)."""
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
        started = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - started

    def _plan(self, layer: Layer, batch: Batch, dtype: torch.dtype) -> LayerPlan | None:
        packs = [member.get(layer) for member in self._members]
        return LayerPlan(batch, packs, dtype, self._kernel) if any(packs) else None
