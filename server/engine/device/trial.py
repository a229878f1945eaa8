"""A layer with random adapters in its pool, to try the kernels. Rows that no adapter has hold NaN."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.device import reference
from lora_compose.server.engine.device.batch_table import BatchTable, Limits, Members
from lora_compose.server.engine.device.deltas import Kernels, add_deltas, scratch
from lora_compose.server.engine.device.layer_pool import HostFactors, LayerPool
from lora_compose.server.engine.device.rank_pool import RankPool

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""The relative error of the deltas that is allowed. The 16-bit types round the sum y + delta once."""


@dataclass(frozen=True)
class TrialShape:
    """The layer's sizes, and the largest batch."""

    d_in: int = 300
    widths: tuple[int, ...] = (160, 48)
    max_ranks: int = 96
    max_rows: int = 128


class TrialLayer:
    """Adapters `m0`, `m1`, … of the given ranks. `m1` lacks the first slice, if there are more."""

    def __init__(
        self,
        ranks: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        shape: TrialShape = TrialShape(),
    ) -> None:
        self._draw = torch.Generator(device).manual_seed(len(ranks))
        self._dtype, self._device, self._d_in = dtype, device, shape.d_in
        widths, max_rows = shape.widths, shape.max_rows
        self._kernels = Kernels.interpreted() if device == "cpu" else Kernels.of(torch.device(device))
        self.ranks = RankPool(sum(ranks) + 20)
        self.pool = LayerPool.empty(self.ranks.size, shape.d_in, widths, dtype, device)
        self.pool.lora_a.fill_(torch.nan)
        self.pool.lora_b.fill_(torch.nan)
        self.table = BatchTable(Limits(max_rows, max_rows, shape.max_ranks), device)
        self._scratch = scratch(self.table, len(widths), device).fill_(torch.nan)
        self.ranks.allocate("in front", 5, ())
        for number, rank in enumerate(ranks):
            rows = self.ranks.allocate(f"m{number}", rank, ())
            lacks = number == 1 and len(widths) > 1
            pairs = [None if lacks and index == 0 else self._pair(rank, w) for index, w in enumerate(widths)]
            self.pool.write(rows, HostFactors.of(pairs, rank, self.pool, pinned=device != "cpu"))

    def _pair(self, rank: int, width: int) -> PackedPair:
        return PackedPair(
            lora_A=self.normal(rank, self._d_in) * self._d_in**-0.5, lora_B=self.normal(width, rank)
        )

    def normal(self, *size: int) -> torch.Tensor:
        """In the dtype of the factors."""
        return torch.randn(*size, generator=self._draw, device=self._device).to(self._dtype)

    def batch(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """x and y."""
        return self.normal(rows, self._d_in), self.normal(rows, sum(self.pool.widths))

    def run(self, y: torch.Tensor, x: torch.Tensor, wanted: Sequence[Members]) -> torch.Tensor:
        """What the kernels make of y, if each request has one row."""
        self.table.set(wanted, [1] * len(wanted), self.ranks.rows)
        return self.again(y, x)

    def again(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The same for the batch that is set."""
        out = y.clone()
        self.add(out, x)
        return out

    def add(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """Run the kernels on y in place."""
        add_deltas(y, x, self.pool, self.table, self._scratch, self._kernels)

    def error(self, y: torch.Tensor, x: torch.Tensor, wanted: Sequence[Members]) -> float:
        """The error of the deltas, relative to float64. NaN if a row is not finite."""
        expected = reference.added(y, x, self.pool, wanted, self.ranks.rows)
        change = (expected - y.double()).norm()
        return float((self.run(y, x, wanted).double() - expected).norm() / change)


def self_check(dtype: torch.dtype, device: str) -> float:
    """The largest error of a small and of a large batch on this device, relative to float64.

    Raises RuntimeError if it is not small: the kernels must not serve then."""
    layer = TrialLayer((1, 16, 7, 33), dtype, device)
    wanted = [{}, {"m0": 1.0}, {"m1": 0.5, "m2": -2.0}, {"m0": 0.1, "m1": 1.0, "m2": 0.7, "m3": -0.4}]
    errors = []
    for rows in (8, 96):
        x, y = layer.batch(rows)
        errors.append(layer.error(y, x, wanted * (rows // len(wanted))))
    worst = max(errors)
    if not all(error < TOLERANCE[dtype] for error in errors):
        raise RuntimeError(f"our LoRA kernels compute wrong sums on this device: relative errors {errors}")
    return worst
