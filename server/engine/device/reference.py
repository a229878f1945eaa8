"""What the kernels compute, in float64, one row after another."""

from collections.abc import Callable, Sequence

import torch

from lora_compose.server.engine.device.batch_table import Members
from lora_compose.server.engine.device.layer_pool import LayerPool


def added(
    y: torch.Tensor,
    x: torch.Tensor,
    pool: LayerPool,
    wanted: Sequence[Members],
    pool_rows: Callable[[str], Sequence[int]],
) -> torch.Tensor:
    """`y + Σ w · (x Aᵀ) Bᵀ` for row i with the members `wanted[i]`. Everything is `(rows, …)`, float64."""
    expected = y.double().clone()
    for row, members in enumerate(wanted):
        for name, weight in members.items():
            expected[row] += weight * _delta(x[row].double(), pool, list(pool_rows(name)))
    return expected


def _delta(x: torch.Tensor, pool: LayerPool, rows: list[int]) -> torch.Tensor:
    shrunk = pool.lora_a[:, rows].double() @ x
    parts = torch.split(pool.lora_b[rows].double(), list(pool.widths), dim=1)
    return torch.cat([h @ b for h, b in zip(shrunk, parts, strict=True)])
