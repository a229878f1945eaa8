"""vLLM's interface between its LoRA layers and our kernels, for linear layers.

A custom operator runs the kernels, so that `torch.compile` does not look inside: which kernels run depends on
the number of rows, and whether any run on the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from typing_extensions import override
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
from vllm.utils.torch_utils import direct_register_custom_op

from lora_compose.server.engine.device.batch_table import BatchTable, Limits, Members
from lora_compose.server.engine.device.layer_pool import LayerPool
from lora_compose.server.engine.device.torch_deltas import add_deltas

LIBRARY = torch.library.Library("lora_compose", "FRAGMENT")  # type: ignore[no-untyped-call]
WRAPPERS: "WeakValueDictionary[int, PooledPunicaWrapper]" = WeakValueDictionary()
"""By number. A custom operator gets only tensors and numbers."""


class PooledPunicaWrapper(PunicaWrapperBase):
    """The batch and the pools of all layers."""

    def __init__(self, max_num_batched_tokens: int, max_batches: int, device: Any, lora_config: Any) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device)
        max_ranks = 2 * lora_config.max_lora_rank  # a composition, and the fused one that it subtracts
        self.table = BatchTable(Limits(max_num_batched_tokens, max_batches, max_ranks), device)
        self.is_active = False
        """Whether a row of the batch has an adapter. While it is False, graphs are captured without LoRA."""
        self.pools: list[LayerPool] = []
        self._scratch = torch.empty(0)
        self._kernels: Any = None
        self._number = id(self)
        WRAPPERS[self._number] = self

    def add_pool(self, pool: LayerPool) -> int:
        """The number under which a layer calls `add_lora_linear` from now on."""
        self.pools.append(pool)
        if pool.lora_a.device.type == "cuda":
            self._make_room(len(pool.widths))
        return len(self.pools) - 1

    def _make_room(self, slices: int) -> None:
        from lora_compose.server.engine.device.deltas import Kernels, scratch

        device = self.table.weights.device
        self._kernels = self._kernels or Kernels.of(device)
        needed = scratch(self.table, slices, device)
        if needed.numel() > self._scratch.numel():
            self._scratch = needed

    def begin_batch(
        self,
        wanted: Sequence[Members],
        token_counts: Sequence[int],
        pool_rows: Callable[[str], Sequence[int]],
    ) -> None:
        """Set the next batch (see `BatchTable.set`)."""
        self.is_active = any(wanted)
        self.table.set(wanted, token_counts, pool_rows)

    def begin_dummy_batch(self, *, is_active: bool) -> None:
        """Set a batch without adapters, in which the kernels run all the same if `is_active`."""
        self.is_active = is_active
        self.table.clear()

    def run(self, y: torch.Tensor, x: torch.Tensor, number: int) -> None:
        """Add the deltas of a layer."""
        if not self.is_active:
            return
        if self._kernels is None:
            add_deltas(y, x, self.pools[number], self.table)
            return
        from lora_compose.server.engine.device import deltas

        deltas.add_deltas(y, x, self.pools[number], self.table, self._scratch, self._kernels)

    @override
    def update_metadata(self, *_: Any, **__: Any) -> None:
        """Unused: `begin_batch` sets the batch, and slots are not used."""

    @override
    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: int,
        lora_b_stacked: object,
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Add the deltas of each row's members to y, which the base layer has computed.

        `lora_a_stacked` is the number of the layer's pool. `scale` is always 1 (see `stacking`)."""
        torch.ops.lora_compose.add_pooled_deltas(y, x, self._number, lora_a_stacked)

    def _not_offered(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("our kernels are for linear layers")

    add_shrink = add_expand = apply_lora_full_linear = _not_offered
    add_lora_embedding = add_lora_logits = _not_offered


def _add_pooled_deltas(y: torch.Tensor, x: torch.Tensor, wrapper: int, pool: int) -> None:
    WRAPPERS[wrapper].run(y, x, pool)


def _add_nothing(y: torch.Tensor, x: torch.Tensor, wrapper: int, pool: int) -> None:
    """For shapes only."""


direct_register_custom_op(
    op_name="add_pooled_deltas",
    op_func=_add_pooled_deltas,
    mutates_args=["y"],
    fake_impl=_add_nothing,
    target_lib=LIBRARY,
)
