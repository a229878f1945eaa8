"""LoRA on CPUs: two products for the rows of each member of a batch, at the member's true rank.

Upstream's CPU ops gather one LoRA-B matrix per token and index it with −1 for base rows. That silently
applies the last slot's adapter to them. Here a row without an adapter is in no share and is never changed.
The weights of a request are applied between the two products, so a stack needs no factors of its own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from lora_compose.server.engine.cpu.batch import Work
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.layer_plan import Kernels, LayerWork
from lora_compose.server.engine.cpu.packed_factors import Pack

Layer = int
"""`id` of a layer's stacked-A tuple. The layer passes it with every call and keeps it alive."""


@dataclass(frozen=True, eq=False)
class Member:
    """One prepared adapter."""

    packs: Mapping[Layer, Pack]
    scales: bool = False
    """Whether it has DoRA scales, so that its layers scale the base's output."""
    shifts: bool = False
    """Whether it has biases."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's interface between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Imported here: when a worker starts, vLLM inspects all modules and fails at one that numba imports.
        from lora_compose.server.engine.cpu.kernel import add_deltas, scale_rows

        self._kernels = Kernels(add_deltas, scale_rows)
        self._work: Work | None = None
        self._members: dict[str, Member] = {}
        self._meter = Meter()
        self._plans: dict[Layer, LayerWork | None] = {}

    def begin_batch(self, work: Work, members: Callable[[str], Member], meter: Meter) -> None:
        """Set the next batch. `members` returns an adapter of the store by its directory."""
        self._meter = meter
        self._members = {name: members(name) for name in work.members}
        self._work = work if self._members else None
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
        """Add the deltas of each row's members to y, which the base layer has computed.

        `scale` is always 1 (see `stacking`)."""
        if self._work is None:
            return
        layer = id(lora_a_stacked)
        if layer not in self._plans:
            self._plans[layer] = self._plan(layer, self._work, y.dtype)
        plan = self._plans[layer]
        if plan is None:
            return
        if not self._meter.is_on:
            plan.add_deltas(y, x)
            return
        started = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - started

    def _plan(self, layer: Layer, work: Work, dtype: torch.dtype) -> LayerWork | None:
        packs = {name: member.packs.get(layer) for name, member in self._members.items()}
        return LayerWork(work, packs, dtype, self._kernels) if any(packs.values()) else None
