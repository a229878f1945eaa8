"""The same sum as the kernels', from the same tables, with torch. For devices without Triton."""

import torch

from lora_compose.server.engine.device.batch_table import BatchTable
from lora_compose.server.engine.device.kernels import TILE_FIELDS
from lora_compose.server.engine.device.layer_pool import LayerPool


def add_deltas(y: torch.Tensor, x: torch.Tensor, pool: LayerPool, table: BatchTable) -> None:
    """`y[row] += Σ_rank (w · x Aᵀ) Bᵀ` in place, for every row of the batch's tiles."""
    tiles = table.tiles(len(x))
    fields = tiles.fields[: TILE_FIELDS * int(tiles.count)].reshape(-1, TILE_FIELDS)
    for group, first, height in fields.tolist():
        rank, start = int(table.counts[group]), group * table.limits.max_ranks
        entries = table.entries[start : start + rank]
        rows = table.rows[first : first + height]
        weights = table.weights[table.compositions[first : first + height], :rank]
        parts = torch.split(pool.lora_b[entries].float(), list(pool.widths), dim=1)
        shrunk = [x[rows].float() @ lora_a.float().T * weights for lora_a in pool.lora_a[:, entries]]
        delta = torch.cat([h @ b for h, b in zip(shrunk, parts, strict=True)], dim=1)
        y[rows] = (y[rows].float() + delta).to(y.dtype)
