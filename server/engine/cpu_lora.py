"""LoRA on CPUs: group a batch's rows by adapter, two GEMMs a group, at the adapter's true rank.

Upstream's CPU ops gather one LoRA-B matrix per token, and index it with −1 for base rows, which silently
gives them the last slot's adapter. Here a row without an adapter is in no group and is never touched.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

if TYPE_CHECKING:
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

# Up to this many multiplications a product takes numpy's BLAS, which does those on the calling thread. torch
# would wake its OpenMP team for each, and on a machine whose cores also serve HTTP the team's barrier costs
# ten times the arithmetic (docs/cpu-performance.md).
SMALL_PRODUCT = 262_144
# Up to this many rows a packed layer's slices share one expand GEMM against a block-diagonal B: fewer calls
# beat fewer multiplications there.
BLOCK_DIAGONAL_ROWS = 64


@dataclass(frozen=True)
class Pack:
    """One slot's factors for one layer, all slices together.

    `lora_a` is `(R, d_in)`, `lora_b_t` is `(R, Σ d_out)` and block-diagonal, R the sum of the slices' ranks;
    `blocks` holds `(r0, r1, o0, o1)` of each slice that has factors.
    """

    lora_a: torch.Tensor
    lora_b_t: torch.Tensor
    blocks: tuple[tuple[int, int, int, int], ...]

    @cached_property
    def small_rows(self) -> int:
        """Up to so many rows both products are small; none where numpy does not know the dtype."""
        if self.lora_a.dtype != torch.float32:
            return 0
        width = max(self.lora_a.shape[1], self.lora_b_t.shape[1])
        return SMALL_PRODUCT // (self.lora_a.shape[0] * width)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Aᵀ and Bᵀ on the same memory."""
        return self.lora_a.numpy().T, self.lora_b_t.numpy()

    def add_delta(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """`y += x Aᵀ Bᵀ` in place; x is `(n, d_in)`, y `(n, Σ d_out)`."""
        if x.shape[0] <= self.small_rows:
            lora_a_t, lora_b_t = self.arrays
            target = y.numpy()
            target += (x.numpy() @ lora_a_t) @ lora_b_t
            return
        shrunk = functional.linear(x, self.lora_a)
        if len(self.blocks) == 1 or x.shape[0] <= BLOCK_DIAGONAL_ROWS:
            y.addmm_(shrunk, self.lora_b_t)
            return
        for r0, r1, o0, o1 in self.blocks:
            y[:, o0:o1].addmm_(shrunk[:, r0:r1], self.lora_b_t[r0:r1, o0:o1])


def pack_slot(layer: "BaseLinearLayerWithLoRA", slot: int, ranks: list[int]) -> Pack | None:
    """A slot's factors out of vLLM's zero-padded (and, under tensor parallelism, sharded) buffers."""
    widths = [b.shape[2] for b in layer.lora_b_stacked]
    used = [i for i, rank in enumerate(ranks) if rank]
    if not used:
        return None
    lora_a = torch.cat([layer.lora_a_stacked[i][slot, 0, : ranks[i]] for i in used])
    lora_b_t = lora_a.new_zeros(lora_a.shape[0], sum(widths))
    blocks, row = [], 0
    for i in used:
        o0 = sum(widths[:i])
        block = (row, row + ranks[i], o0, o0 + widths[i])
        lora_b_t[block[0] : block[1], block[2] : block[3]] = layer.lora_b_stacked[i][slot, 0, :, : ranks[i]].T
        blocks.append(block)
        row = block[1]
    return Pack(lora_a, lora_b_t, tuple(blocks))


@dataclass(frozen=True)
class Group:
    """The rows of a batch that one slot's adapter answers: a slice where adjacent, else their indices."""

    slot: int
    rows: slice | torch.Tensor | None
    """None for all of them."""


def group_rows(slots: np.ndarray) -> list[Group]:
    """Rows by slot; −1 means no adapter. `slots` is `(tokens,)`."""
    groups = []
    for slot in np.unique(slots):
        if slot < 0:
            continue
        rows = np.flatnonzero(slots == slot)
        first, last = int(rows[0]), int(rows[-1]) + 1
        if len(rows) == len(slots):
            groups.append(Group(int(slot), None))
        elif last - first == len(rows):
            groups.append(Group(int(slot), slice(first, last)))
        else:
            groups.append(Group(int(slot), torch.from_numpy(rows)))
    return groups


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's seam between its LoRA layers and the kernels, for CPUs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups: list[Group] = []
        # A layer hands us its stacked-A tuple with every call; the tuple lives as long as the layer.
        self._packs: dict[int, dict[int, Pack]] = {}

    def pack(self, layer: "BaseLinearLayerWithLoRA", slot: int, ranks: list[int]) -> None:
        """Note a slot's new content. Valid until the slot is packed again."""
        packs = self._packs.setdefault(id(layer.lora_a_stacked), {})
        pack = pack_slot(layer, slot, ranks)
        if pack is None:
            packs.pop(slot, None)
        else:
            packs[slot] = pack

    @override
    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        slot_of = {lora_id: slot for slot, lora_id in enumerate(lora_index_to_id) if lora_id is not None}
        slots = [slot_of[lora_id] if lora_id > 0 else -1 for lora_id in mapping.index_mapping]
        self._groups = group_rows(np.asarray(slots, dtype=np.int64))

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
        """`y[rows] += x[rows] Aᵀ Bᵀ` for each group; `scale` is 1 by construction (see `stacking`)."""
        packs = self._packs.get(id(lora_a_stacked), {})
        for group in self._groups:
            pack = packs.get(group.slot)
            if pack is None:
                continue
            if group.rows is None:
                pack.add_delta(y, x)
            elif isinstance(group.rows, slice):
                pack.add_delta(y[group.rows], x[group.rows])
            else:
                part = y[group.rows]
                pack.add_delta(part, x[group.rows])
                y[group.rows] = part
