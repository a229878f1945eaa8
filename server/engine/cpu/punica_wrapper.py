"""LoRA on CPUs: two products for the rows of each member of a batch, at the member's true rank.

Upstream's CPU ops gather one LoRA-B matrix per token and index it with −1 for base rows. That silently
applies the last slot's adapter to them. Here a row without an adapter is in no share and is never changed.
The weights of a request are applied between the two products, so a stack needs no factors of its own.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from lora_compose.server.engine.cpu import norms
from lora_compose.server.engine.cpu.batch import Batch, Work
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.embedding_plan import EmbeddingPlan
from lora_compose.server.engine.cpu.layer_plan import Kernels, LayerWork
from lora_compose.server.engine.cpu.plans import Member, Plans


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's interface between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_up()
        _compile_for(kwargs["lora_config"].lora_dtype)

    def _set_up(self) -> None:
        # Imported here: when a worker starts, vLLM inspects all modules and fails at one that numba imports.
        from lora_compose.server.engine.cpu import kernel

        kernels = {
            torch.float32: Kernels(kernel.add_deltas, kernel.scale_rows),
            torch.bfloat16: Kernels(kernel.add_deltas_bfloat16, kernel.scale_rows_bfloat16),
        }
        layer_work = partial(LayerWork, kernels=kernels)
        self._linear: Plans[Work, LayerWork] = Plans(layer_work, "packs")
        self._head: Plans[Work, LayerWork] = Plans(layer_work, "packs")
        self._embedding: Plans[Batch, EmbeddingPlan] = Plans(
            partial(EmbeddingPlan, kernel=kernel.add_embedding_deltas), "embeddings"
        )
        self._meter = Meter()

    def begin_batch(self, work: Work, members: Callable[[str], Member], meter: Meter) -> None:
        """Set the next batch. `members` returns an adapter of the store by its directory."""
        self._meter = meter
        self._linear.begin(work, work.members, members)

    def begin_embedding(self, batch: Batch, members: Callable[[str], Member]) -> None:
        """Set the next batch of the input embedding."""
        self._embedding.begin(batch, {share.member for share in batch.shares}, members)

    def begin_head(self, work: Work, members: Callable[[str], Member]) -> None:
        """Set the next batch of the output head."""
        self._head.begin(work, work.members, members)

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
        """Add the deltas of each row's members to y, which the base layer has computed.

        `scale` is always 1 (see `stacking`)."""
        plan = self._linear.find(id(lora_a_stacked), y.dtype)
        if plan is not None:
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
        """Like `add_lora_linear`, for the logits y `(rows, V)` of the hidden states x `(rows, d)`.

        y may have another dtype than the factors, because vLLM's `head_dtype` may differ from the model's."""
        plan = self._head.find(id(lora_a_stacked), x.dtype)
        if plan is None:
            return
        logits = y.to(x.dtype).contiguous()
        self._run(plan, logits, x)
        if logits is not y:
            y.copy_(logits)

    def _run(self, plan: LayerWork | EmbeddingPlan, y: torch.Tensor, x: torch.Tensor) -> None:
        if not self._meter.is_on:
            plan.add_deltas(y, x)
            return
        started = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - started


def _compile_for(dtype: torch.dtype) -> None:
    from lora_compose.server.engine.cpu import kernel  # late, as above

    norms.compile_for(dtype)
    kernel.compile_for(is_bfloat16=dtype == torch.bfloat16)
