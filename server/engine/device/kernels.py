"""The two kernels that add LoRA deltas: `h = x Aᵀ` (shrink), then `y += (w · h) B` (expand).

The factors of all adapters on the device are rows of one pool for each layer: row p of `a` is a row of some
adapter's A, and row p of `b` the same row of its Bᵀ. A composition is a list of such rows, so a stack needs
no factors of its own, and every adapter costs its true rank. A request's weights are applied to h in float32.

Rows of a batch with the same members are a group. A tile is a part of a group. The grid does not depend on
the batch, as CUDA graphs need it: programs take tiles until the count, which is in memory, is reached.

No sum is atomic. The shrink of a small batch divides `d_in` into `SPLITS` parts, whose sums the expand adds
in their order. So a row gets the same bits in every batch that the same two kernels run.

S-LoRA (Sheng et al., 2023) keeps adapters as rows of a pool. Punica (Chen et al., 2023) groups rows.
"""

import triton
import triton.language as tl

TILE_FIELDS = 3
"""A tile: its group, its first position in the sorted rows, and its number of rows."""


@triton.jit
def shrink(
    x,
    a,
    h,
    tile_count,
    tiles,
    rows,
    entries,
    counts,
    x_stride,
    a_stride,
    h_rows,
    d_in,
    lanes,
    MAX_RANKS: tl.constexpr,
    SLICES: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLITS_AT_ONCE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDEN: tl.constexpr,
    PDL: tl.constexpr,
):
    """`h[split, slice, position, rank] = Σ_k x[row, k] a[slice, entry, k]` over the split's part of k.

    `SPLITS_AT_ONCE` is `SPLITS` in a kernel for large batches: it adds the parts in their order itself, and
    writes one split. `WIDEN` multiplies in float32, for Triton's interpreter."""
    if PDL:  # the expand may be launched now: it waits for the end of this kernel before it reads h
        tl.extra.cuda.gdc_launch_dependents()
    rank_blocks: tl.constexpr = (MAX_RANKS + BLOCK_R - 1) // BLOCK_R
    piece = tl.program_id(0) // rank_blocks
    first_rank = (tl.program_id(0) % rank_blocks) * BLOCK_R
    split = tl.program_id(1)
    per_split = ((d_in + BLOCK_K - 1) // BLOCK_K + SPLITS - 1) // SPLITS * BLOCK_K
    ranks = first_rank + tl.arange(0, BLOCK_R)
    for tile in range(tl.program_id(2), tl.load(tile_count), lanes):
        group = tl.load(tiles + tile * 3)
        first = tl.load(tiles + tile * 3 + 1)
        height = tl.load(tiles + tile * 3 + 2)
        count = tl.load(counts + group)
        if first_rank < count:
            is_rank = ranks < count
            is_row = tl.arange(0, BLOCK_M) < height
            positions = first + tl.arange(0, BLOCK_M)
            row = tl.load(rows + positions, mask=is_row, other=0).to(tl.int64)
            entry = tl.load(entries + group * MAX_RANKS + ranks, mask=is_rank, other=0).to(tl.int64)
            x_rows = x + row[:, None] * x_stride
            a_rows = a + piece.to(tl.int64) * a_stride + entry[None, :] * d_in
            total = tl.full((BLOCK_M, BLOCK_R), 0.0, tl.float32)
            for part in range(split, split + SPLITS_AT_ONCE):
                partial = tl.full((BLOCK_M, BLOCK_R), 0.0, tl.float32)
                for k in range(part * per_split, tl.minimum((part + 1) * per_split, d_in), BLOCK_K):
                    ks = k + tl.arange(0, BLOCK_K)
                    is_k = ks < d_in
                    x_tile = tl.load(x_rows + ks[None, :], mask=is_row[:, None] & is_k[None, :], other=0.0)
                    a_tile = tl.load(a_rows + ks[:, None], mask=is_rank[None, :] & is_k[:, None], other=0.0)
                    if WIDEN:
                        x_tile, a_tile = x_tile.to(tl.float32), a_tile.to(tl.float32)
                    partial = tl.dot(x_tile, a_tile, partial, input_precision="ieee")
                total += partial
            place = ((split * SLICES + piece) * h_rows + positions)[:, None] * MAX_RANKS + ranks[None, :]
            tl.store(h + place, total, mask=is_row[:, None] & is_rank[None, :])


@triton.jit
def expand(
    y,
    b,
    h,
    tile_count,
    tiles,
    rows,
    compositions,
    entries,
    counts,
    weights,
    column_blocks,
    y_stride,
    width,
    h_rows,
    lanes,
    MAX_RANKS: tl.constexpr,
    SLICES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    WIDEN: tl.constexpr,
    PDL: tl.constexpr,
):
    """`y[row, column] += Σ_rank weights[composition, rank] (Σ_split h[…]) b[entry, column]`, rounded once.

    A column block is a slice, its first column and its number of columns."""
    piece = tl.load(column_blocks + tl.program_id(0) * 3)
    first_column = tl.load(column_blocks + tl.program_id(0) * 3 + 1)
    is_column = tl.arange(0, BLOCK_N) < tl.load(column_blocks + tl.program_id(0) * 3 + 2)
    columns = first_column + tl.arange(0, BLOCK_N)
    if PDL:
        tl.extra.cuda.gdc_wait()
    for tile in range(tl.program_id(1), tl.load(tile_count), lanes):
        group = tl.load(tiles + tile * 3)
        first = tl.load(tiles + tile * 3 + 1)
        height = tl.load(tiles + tile * 3 + 2)
        count = tl.load(counts + group)
        is_row = tl.arange(0, BLOCK_M) < height
        positions = first + tl.arange(0, BLOCK_M)
        row = tl.load(rows + positions, mask=is_row, other=0).to(tl.int64)
        composition = tl.load(compositions + positions, mask=is_row, other=0)
        delta = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
        for first_rank in range(0, count, BLOCK_R):
            ranks = first_rank + tl.arange(0, BLOCK_R)
            is_rank = ranks < count
            is_used = is_row[:, None] & is_rank[None, :]
            entry = tl.load(entries + group * MAX_RANKS + ranks, mask=is_rank, other=0).to(tl.int64)
            b_tile = tl.load(
                b + entry[:, None] * width + columns[None, :],
                mask=is_rank[:, None] & is_column[None, :],
                other=0.0,
            )
            shrunk = tl.full((BLOCK_M, BLOCK_R), 0.0, tl.float32)
            for split in tl.static_range(SPLITS):
                place = ((split * SLICES + piece) * h_rows + positions)[:, None] * MAX_RANKS + ranks[None, :]
                shrunk += tl.load(h + place, mask=is_used, other=0.0)
            weight = tl.load(
                weights + composition[:, None] * MAX_RANKS + ranks[None, :], mask=is_used, other=0.0
            )
            scaled = (shrunk * weight).to(b_tile.dtype)
            if WIDEN:
                scaled, b_tile = scaled.to(tl.float32), b_tile.to(tl.float32)
            delta = tl.dot(scaled, b_tile, delta, input_precision="ieee")
        target = y + row[:, None] * y_stride + columns[None, :]
        is_target = is_row[:, None] & is_column[None, :]
        before = tl.load(target, mask=is_target, other=0.0).to(tl.float32)
        tl.store(target, (before + delta).to(y.dtype.element_ty), mask=is_target)
