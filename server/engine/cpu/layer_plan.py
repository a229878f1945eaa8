"""The plan of a batch's LoRA work in one layer. It is made once a batch and run once a step.

Decoding runs the same plan for many steps. So everything that does not depend on the inputs is decided when
the plan is made: which products there are, their sizes, and where their results are added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lora_compose.server.engine.cpu import row_terms
from lora_compose.server.engine.cpu.batch import Batch, Share, Work
from lora_compose.server.engine.cpu.packed_factors import Pack

# Shares of up to this many multiplications use our kernel, on the calling thread. Above that, torch's blocked
# products on torch's threads are faster (docs/cpu-performance.md).
SMALL_SHARE = 1 << 22

AddDeltas = Callable[[int, int, tuple[int, int, int], np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Kernels:
    """The functions of `kernel` for one dtype. That module is imported late."""

    add_deltas: AddDeltas
    scale_rows: row_terms.ScaleRows


KernelsOf = Mapping[torch.dtype, Kernels]
"""A dtype that is not in it is computed with torch."""


@dataclass(frozen=True, eq=False)
class LargeShare:
    """The rows of one member, computed with torch."""

    rows: slice | torch.Tensor
    weights: torch.Tensor | None
    """`(n, 1)`; None if all weights are 1."""
    pack: Pack

    def add_delta(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """`y[rows] += weights · (x[rows] Aᵀ) Bᵀ`."""
        if isinstance(self.rows, slice):
            self.pack.add_delta(y[self.rows], x[self.rows], self.weights)
            return
        part = y[self.rows]
        self.pack.add_delta(part, x[self.rows], self.weights)
        y[self.rows] = part


class LayerPlan:
    """`y[row] += Σ w (x[row] Aᵀ) Bᵀ` over each row's members, in place.

    `packs` has one entry for each share of the batch; None if the member has no factors for this layer.
    """

    def __init__(
        self, batch: Batch, packs: Sequence[Pack | None], dtype: torch.dtype, kernels: KernelsOf
    ) -> None:
        self._batch = batch
        self._kernels = kernels.get(dtype)
        self._packs = packs  # keeps their memory alive: the table holds only addresses
        self._large: list[LargeShare] = []
        lines: list[tuple[int, ...]] = []
        for share, pack in zip(batch.shares, packs, strict=True):
            if pack is None:
                continue
            if self._kernels is not None and _is_small(share, pack):
                lines += [(share.start, share.end, *part) for part in pack.addresses]
            else:
                self._large.append(_large_share(batch, share, pack, dtype))
        self._table = np.array(lines, dtype=np.int64)

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """x is `(rows, d_in)`, y `(rows, width)` and contiguous."""
        batch = self._batch
        if self._kernels is not None and len(self._table):
            (n, width), inputs = y.shape, x.contiguous()
            if batch.height > n:
                raise IndexError(f"row {batch.height - 1} is out of range: there are {n} rows")
            if not y.is_contiguous() or len(inputs) != n:
                raise ValueError("the output is not contiguous, or has another number of rows than the input")
            shape = (n, inputs.shape[1], width)
            addresses = y.data_ptr(), inputs.data_ptr()
            self._kernels.add_deltas(*addresses, shape, batch.rows, batch.weights, self._table)
        for share in self._large:
            share.add_delta(y, x)


class LayerWork:
    """All LoRA work of a batch in one layer. `packs` has each member's factors; None if it has none here."""

    def __init__(
        self, work: Work, packs: Mapping[str, Pack | None], dtype: torch.dtype, kernels: KernelsOf
    ) -> None:
        self._before = self._scaling = None
        if work.before.shares:
            self._before = _plan(work.before, packs, dtype, kernels)
        if work.scaling.shares:
            known = {name: None if pack is None else pack.terms for name, pack in packs.items()}
            terms = [row_terms.terms_of(share, known) for share in work.scaling.shares]
            found = kernels.get(dtype)
            kernel = None if found is None else found.scale_rows
            self._scaling = row_terms.LayerScaling(work.scaling, terms, kernel)
        self._deltas = _plan(work.deltas, packs, dtype, kernels)

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """x is `(rows, d_in)`, y the base layer's output, `(rows, width)` and contiguous."""
        if self._before is not None:
            self._before.add_deltas(y, x)
        if self._scaling is not None:
            self._scaling.apply(y)
        self._deltas.add_deltas(y, x)


def _plan(
    batch: Batch, packs: Mapping[str, Pack | None], dtype: torch.dtype, kernels: KernelsOf
) -> LayerPlan:
    return LayerPlan(batch, [packs[share.member] for share in batch.shares], dtype, kernels)


def _is_small(share: Share, pack: Pack) -> bool:
    multiplications = (share.end - share.start) * pack.rank * max(pack.lora_a.shape[1], pack.width)
    return multiplications <= SMALL_SHARE


def _large_share(batch: Batch, share: Share, pack: Pack, dtype: torch.dtype) -> LargeShare:
    rows, weights = batch.rows[share.start : share.end], batch.weights[share.start : share.end]
    column = None if (weights == 1).all() else torch.from_numpy(weights).to(dtype)[:, None]
    if rows[-1] - rows[0] + 1 == len(rows):  # adjacent rows need no copy
        return LargeShare(slice(int(rows[0]), int(rows[-1]) + 1), column, pack)
    return LargeShare(torch.from_numpy(rows), column, pack)
