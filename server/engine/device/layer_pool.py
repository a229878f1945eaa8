"""The factors of all adapters on the device, for one layer: A and Bᵀ, a row for each rank (see `kernels`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from lora_compose.server.engine.cpu.packed_factors import PackedPair

BLOCK_N = 128
"""Columns of y that one program of the expand writes."""


@dataclass(frozen=True, eq=False)
class LayerPool:
    """`lora_a` is `(slices, size, d_in)`, `lora_b` `(size, width)`: a row holds the columns of all slices."""

    lora_a: torch.Tensor
    lora_b: torch.Tensor
    widths: tuple[int, ...]
    column_blocks: torch.Tensor
    """`(blocks, 3)`, int32: the slice, the first column and the number of columns."""

    @classmethod
    def empty(
        cls, size: int, d_in: int, widths: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> "LayerPool":
        """A pool of `size` rows. What is in rows that no adapter has does not matter."""
        blocks = torch.tensor(_column_blocks(widths), dtype=torch.int32, device=device)
        lora_a = torch.empty((len(widths), size, d_in), dtype=dtype, device=device)
        lora_b = torch.empty((size, sum(widths)), dtype=dtype, device=device)
        return cls(lora_a, lora_b, tuple(widths), blocks)

    @property
    def nbytes(self) -> int:
        """The bytes of both tensors."""
        return self.lora_a.nbytes + self.lora_b.nbytes

    def write(self, rows: Sequence[int], factors: "HostFactors") -> None:
        """Write an adapter's factors into `rows`, one for each of its ranks. On a GPU, this does not wait."""
        if list(rows) == [*range(rows[0], rows[0] + len(rows))]:
            end = rows[0] + len(rows)
            self.lora_a[:, rows[0] : end].copy_(factors.lora_a, non_blocking=True)
            self.lora_b[rows[0] : end].copy_(factors.lora_b, non_blocking=True)
            return
        index = torch.tensor(rows).to(self.lora_a.device, non_blocking=True)
        self.lora_a.index_copy_(1, index, factors.lora_a.to(index.device, non_blocking=True))
        self.lora_b.index_copy_(0, index, factors.lora_b.to(index.device, non_blocking=True))


@dataclass(frozen=True, eq=False)
class HostFactors:
    """An adapter's factors for one layer, in host memory: `(slices, rank, d_in)` and `(rank, width)`."""

    lora_a: torch.Tensor
    lora_b: torch.Tensor

    @classmethod
    def of(
        cls, factors: Sequence[PackedPair | None], rank: int, pool: LayerPool, *, pinned: bool
    ) -> "HostFactors":
        """From a pair for each slice, or None. Ranks that a slice lacks are zeros.

        `pinned` memory can be copied to a GPU while it computes."""
        lora_a = pool.lora_a.new_zeros((len(factors), rank, pool.lora_a.shape[2]), device="cpu")
        lora_b = pool.lora_b.new_zeros((rank, sum(pool.widths)), device="cpu")
        ends = accumulate(pool.widths)
        for index, (pair, end, width) in enumerate(zip(factors, ends, pool.widths, strict=True)):
            if pair is not None:
                lora_a[index, : len(pair.lora_A)] = pair.lora_A
                lora_b[: pair.lora_B.shape[1], end - width : end] = pair.lora_B.T
        return cls(lora_a.pin_memory(), lora_b.pin_memory()) if pinned else cls(lora_a, lora_b)

    @property
    def nbytes(self) -> int:
        """The bytes of both tensors."""
        return self.lora_a.nbytes + self.lora_b.nbytes


def _column_blocks(widths: Sequence[int]) -> list[tuple[int, int, int]]:
    blocks = []
    for index, (width, end) in enumerate(zip(widths, accumulate(widths), strict=True)):
        start = end - width
        blocks += [(index, at, min(BLOCK_N, end - at)) for at in range(start, end, BLOCK_N)]
    return blocks
