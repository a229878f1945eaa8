"""LoRA on CPUs: group a batch's rows by what they ask for, two products a group, at the true rank.

Upstream's CPU ops gather one LoRA-B matrix per token, and index it with −1 for base rows, which silently
gives them the last slot's adapter. Here a row without an adapter is in no group and is never touched; and
since a request's weights are applied between the two products, a stack needs no factors of its own.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from server.engine.batch import Batch, Group
from server.engine.layer_plan import LayerPlan, Product, plan_layer
from server.engine.metering import Meter
from server.engine.packs import Pack, join

# A stack's members share their two products up to this many elements; above, copying costs more than calls.
JOINED_ELEMENTS = 1 << 16
MAX_JOINED = 64

Layer = int
"""`id` of a layer's stacked-A tuple, which it hands us with every call and which lives as long as it does."""
Member = Mapping[Layer, Pack]
"""One adapter, prepared."""


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's seam between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batch: Batch | None = None
        self._members: Callable[[str], Member] = _no_member
        self._meter = Meter()
        self._plans: dict[Layer, LayerPlan | None] = {}
        self._joined: OrderedDict[tuple[str, ...], dict[Layer, Pack | None]] = OrderedDict()

    def begin_batch(self, batch: Batch, members: Callable[[str], Member], meter: Meter) -> None:
        """The rows to come. `members` gives an adapter of the store, by its directory."""
        self._meter = meter
        self._batch = batch if batch.groups else None
        self._members = members
        self._plans = {}

    def forget(self, directory: str) -> None:
        """An adapter leaves host memory."""
        for members in [members for members in self._joined if directory in members]:
            del self._joined[members]

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
        """`y[rows] += (x[rows] Aᵀ ∘ w) Bᵀ` for each group; `scale` is 1 by construction (see `stacking`)."""
        if self._batch is None:
            return
        layer = id(lora_a_stacked)
        if layer not in self._plans:
            self._plans[layer] = self._plan(layer, self._batch, y)
        plan = self._plans[layer]
        if plan is None:
            return
        if not self._meter.is_on:
            plan.add_deltas(y, x)
            return
        began = time.perf_counter()
        plan.add_deltas(y, x)
        self._meter.lora_seconds += time.perf_counter() - began

    def _plan(self, layer: Layer, batch: Batch, y: torch.Tensor) -> LayerPlan | None:
        products = [
            product
            for group in batch.groups
            for product in self._products(layer, group, may_join=batch.repeats)
        ]
        return plan_layer(batch.order, products, y, repeats=batch.repeats) if products else None

    def _products(self, layer: Layer, group: Group, *, may_join: bool) -> list[Product]:
        packs = [self._members(directory).get(layer) for directory in group.members]
        joined = self._join(layer, group.members, packs) if may_join and len(packs) > 1 else None
        if joined is not None:
            packs = [joined]
        products = []
        for member, pack in enumerate(packs):
            if pack is not None:
                of_rank = pack.members if pack is joined else np.full(pack.rank, member)
                weights = None if group.weights is None else group.weights[..., of_rank]
                products.append(Product(group.rows, pack, weights))
        return products

    def _join(self, layer: Layer, members: tuple[str, ...], packs: Sequence[Pack | None]) -> Pack | None:
        if sum(pack.elements for pack in packs if pack) > JOINED_ELEMENTS:
            return None
        layers = self._joined.setdefault(members, {})
        self._joined.move_to_end(members)
        if len(self._joined) > MAX_JOINED:
            self._joined.popitem(last=False)
        if layer not in layers:
            layers[layer] = join(packs)
        return layers[layer]


def _no_member(directory: str) -> Member:
    raise KeyError(directory)
