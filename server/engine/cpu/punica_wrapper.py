"""LoRA on CPUs: two products for the rows of each member of a batch, at the member's true rank.

Upstream's CPU ops gather one LoRA-B matrix per token and index it with −1 for base rows. That silently
applies the last slot's adapter to them. Here a row without an adapter is in no share and is never changed.
The weights of a request are applied between the two products, so a stack needs no factors of its own.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from lora_compose.server.engine.cpu.batch import Batch
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.embedding_plan import EmbeddingPlan
from lora_compose.server.engine.cpu.end_plans import EndPlans
from lora_compose.server.engine.cpu.layer_plan import Kernel, LayerPlan

Layer = int
"""`id` of a layer's stacked-A tuple. The layer passes it with every call and keeps it alive. An embedding
has no such tuple; `id` of the layer itself stands for it."""
Member = Mapping[Layer, Any]
"""One prepared adapter: an `EmbeddingPack` for the input embedding, a `Pack` for every other layer."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's interface between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Imported here: when a worker starts, vLLM inspects all modules and fails at one that numba imports.
        from lora_compose.server.engine.cpu.kernel import add_deltas, add_embedding_deltas

        self._kernel: Kernel = add_deltas
        self._embedding = EndPlans(partial(EmbeddingPlan, kernel=add_embedding_deltas))
        self._head = EndPlans(partial(LayerPlan, kernel=add_deltas))
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

    def begin_embedding(self, batch: Batch, members: Callable[[str], Member]) -> None:
        """Set the next batch of the input embedding."""
        self._embedding.begin(batch, members)

    def begin_head(self, batch: Batch, members: Callable[[str], Member]) -> None:
        """Set the next batch of the output head."""
        self._head.begin(batch, members)

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
        self._run(plan, y, x)

    def add_embedding(self, y: torch.Tensor, tokens: torch.Tensor, layer: object) -> None:
        """`y[rows] += w B[tokens[rows]] A` for each share. y is `(rows, d)` and contiguous."""
        plan = self._embedding.find(id(layer), y.dtype)
        if plan is not None:
            self._run(plan, y, tokens)

    @override
    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Like `add_lora_linear`, for the logits y `(rows, at least V)` of the hidden states x `(rows, d)`.

        The logits may have another dtype than the factors (vLLM's `head_dtype`)."""
        plan = self._head.find(id(lora_a_stacked), x.dtype)
        if plan is None:
            return
        if y.dtype == x.dtype and y.is_contiguous():
            self._run(plan, y, x)
            return
        delta = torch.zeros(y.shape, dtype=x.dtype)
        self._run(plan, delta, x)
        y += delta

    def _run(self, plan: LayerPlan | EmbeddingPlan, y: torch.Tensor, x: torch.Tensor) -> None:
        if not self._meter.is_on:
            plan.add_deltas(y, x)
            return
        started = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - started

    def _plan(self, layer: Layer, batch: Batch, dtype: torch.dtype) -> LayerPlan | None:
        packs = [member.get(layer) for member in self._members]
        return LayerPlan(batch, packs, dtype, self._kernel) if any(packs) else None
