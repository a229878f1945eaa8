"""The change of one layer in a merge: a low-rank matrix, plus a multiple of each row of the base's weight.

Plain LoRA has no such multiples, and then the base is not needed. DoRA has them: `W' - W = (s - 1) * W + L`
(see `peft.dora`). Sums and differences of changes are changes, so they stay exact and small. Norms with
multiples go through a few rows of the dense matrix at a time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lora_compose.adapters.merging import low_rank
from lora_compose.adapters.merging.low_rank import LowRank

ROWS_AT_ONCE = 1024


class Change(NamedTuple):
    """`row_change * W + factors`, for W (d_out, d_in), float64."""

    factors: LowRank
    row_change: Tensor | None
    """(d_out,); None if it is zero."""

    def rows(self, which: slice, weight: Tensor | None) -> Tensor:
        """The dense rows `which`, float64. `weight` is W; it may be None without `row_change`."""
        dense = self.factors.B[which] @ self.factors.A
        if self.row_change is not None:
            assert weight is not None
            dense += self.row_change[which, None] * weight[which]
        return dense


def norm(change: Change, weight: Tensor | None) -> float:
    """Frobenius norm."""
    if change.row_change is None or not change.row_change.any():
        return low_rank.norm(change.factors)
    starts = range(0, len(change.row_change), ROWS_AT_ONCE)
    squares = [change.rows(slice(s, s + ROWS_AT_ONCE), weight).square().sum() for s in starts]
    return float(torch.stack(squares).sum().sqrt())


def distance(left: Change, right: Change, weight: Tensor | None) -> float:
    """Frobenius norm of the difference."""
    factors = low_rank.concat([left.factors, LowRank(B=-right.factors.B, A=right.factors.A)])
    return norm(Change(factors, weighted_sum([left.row_change, right.row_change], [1.0, -1.0])), weight)


def weighted_sum(vectors: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Sum of w_i * v_i, in which None is zero; None if all are."""
    found = [weight * v for v, weight in zip(vectors, weights, strict=True) if v is not None]
    return torch.stack(found).sum(dim=0) if found else None
