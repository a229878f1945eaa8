"""Runs the two kernels for a layer: those for small batches, or those for large ones."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction

from lora_compose.server.engine.device.batch_table import SMALL_BATCH, BatchTable
from lora_compose.server.engine.device.kernels import expand, shrink
from lora_compose.server.engine.device.layer_pool import BLOCK_N, LayerPool

SPLITS = 8
"""Parts of `d_in`. A small batch has too few programs without them."""
LANES = 8
"""Programs that share the tiles of a batch. More groups than that take turns."""


@dataclass(frozen=True)
class Blocks:
    """The sizes of the kernels' blocks, for one kind of batch."""

    shrink_ranks: int
    shrink_k: int
    expand_ranks: int
    shrink_warps: int
    expand_warps: int
    stages: int


SMALL = Blocks(shrink_ranks=16, shrink_k=256, expand_ranks=16, shrink_warps=4, expand_warps=4, stages=3)
LARGE = Blocks(shrink_ranks=32, shrink_k=64, expand_ranks=32, shrink_warps=4, expand_warps=8, stages=3)


@dataclass(frozen=True)
class Kernels:
    """The two kernels as a device runs them."""

    shrink: Any
    expand: Any
    widen: bool = False
    """Whether they multiply in float32, which Triton's interpreter needs."""
    pdl: bool = False
    """Whether the expand starts before the shrink has ended (programmatic dependent launch)."""

    @classmethod
    def of(cls, device: torch.device) -> "Kernels":
        """Compiled for a GPU."""
        is_nvidia = torch.version.hip is None
        return cls(shrink, expand, pdl=is_nvidia and torch.cuda.get_device_capability(device)[0] >= 9)

    @classmethod
    def interpreted(cls) -> "Kernels":
        """In Triton's interpreter, which needs no GPU. It is slow and only for checks."""
        return cls(InterpretedFunction(shrink.fn), InterpretedFunction(expand.fn), widen=True)


def scratch(table: BatchTable, slices: int, device: torch.device | str) -> torch.Tensor:
    """Memory for `h` of the largest batch of layers with at most `slices` slices. Its address is fixed."""
    rows = max(SPLITS * SMALL_BATCH, table.limits.max_rows)
    return torch.empty(slices * rows * table.limits.max_ranks, dtype=torch.float32, device=device)


def add_deltas(
    y: torch.Tensor, x: torch.Tensor, pool: LayerPool, table: BatchTable, h: torch.Tensor, kernels: Kernels
) -> None:
    """Add the deltas of the batch in `table` to y `(rows, width)`, from x `(rows, d_in)`, in place.

    The rows of both are contiguous. `h` is `scratch`."""
    if not len(x):
        return
    tiles, is_small = table.tiles(len(x)), len(x) <= SMALL_BATCH
    blocks, splits = (SMALL, SPLITS) if is_small else (LARGE, 1)
    h_rows = SMALL_BATCH if is_small else table.limits.max_rows
    slices, ranks = len(pool.widths), table.limits.max_ranks
    lanes = min(LANES, len(x)) if is_small else triton.cdiv(len(x), tiles.height) + LANES
    pdl = {"launch_pdl": True} if kernels.pdl else {}
    kernels.shrink[slices * triton.cdiv(ranks, blocks.shrink_ranks), splits, lanes](
        x,
        pool.lora_a,
        h,
        tiles.count,
        tiles.fields,
        table.rows,
        table.entries,
        table.counts,
        x.stride(0),
        pool.lora_a.stride(0),
        h_rows,
        x.shape[1],
        lanes,
        MAX_RANKS=ranks,
        SLICES=slices,
        SPLITS=SPLITS,
        SPLITS_AT_ONCE=SPLITS // splits,
        BLOCK_M=tiles.height,
        BLOCK_R=blocks.shrink_ranks,
        BLOCK_K=blocks.shrink_k,
        WIDEN=kernels.widen,
        PDL=kernels.pdl,
        num_warps=blocks.shrink_warps,
        num_stages=blocks.stages,
    )
    kernels.expand[len(pool.column_blocks), lanes](
        y,
        pool.lora_b,
        h,
        tiles.count,
        tiles.fields,
        table.rows,
        table.compositions,
        table.entries,
        table.counts,
        table.weights,
        pool.column_blocks,
        y.stride(0),
        pool.lora_b.shape[1],
        h_rows,
        lanes,
        MAX_RANKS=ranks,
        SLICES=slices,
        SPLITS=splits,
        BLOCK_M=tiles.height,
        BLOCK_N=BLOCK_N,
        BLOCK_R=blocks.expand_ranks,
        WIDEN=kernels.widen,
        PDL=kernels.pdl,
        num_warps=blocks.expand_warps,
        num_stages=blocks.stages,
        **pdl,
    )
