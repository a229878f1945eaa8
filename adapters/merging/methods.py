"""The combination methods. Each is one row of a table: sparsify, consensus, rank of the result, guarantee.

All methods work on the true deltas D_i = scaling_i * B_i @ A_i of one module at a time. An adapter without
the module takes no part in it. PEFT's methods with the same names and no `_svd` sum A and B separately, which
adds cross terms. The methods here correspond to PEFT's `cat`, `svd` and `*_svd`.

To add a method, add a row here, its name in `composition/composition.py`, and its law in
tests/adapters/merging/test_methods.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import hardshrink

from lora_compose.adapters.composition.composition import MajoritySignMethod

ENTRIES_AT_ONCE = 1 << 16
"""Temporary tensors of this size stay in a core's cache."""

Sparsify = Callable[[Tensor, float, Generator], Tensor]
"""(delta, density, generator) -> delta of the same shape with some entries zero. May overwrite `delta`."""

Consensus = Callable[[Sequence[Tensor], Sequence[float], MajoritySignMethod], Tensor]
"""(deltas, weights, majority_sign_method) -> one dense delta."""


@dataclass(frozen=True)
class CombinationMethod:
    """A row of the table: how a method combines deltas, and what its result guarantees."""

    summary: str
    guarantee: str
    paper: str | None = None
    """arXiv number of the paper that describes it."""
    sparsify: Sparsify | None = None
    consensus: Consensus | None = None
    """None: the weighted sum, computed on the factors and not on dense deltas."""
    default_rank: Literal["sum", "largest"] = "largest"
    """Rank of the result without a rank option: the sum of the members' ranks, or the largest of them."""
    takes_rank: bool = True
    exact: bool = False
    """Whether the result without a rank option equals the stack, up to rounding."""
    seeded: bool = False

    @property
    def elementwise(self) -> bool:
        return self.consensus is not None

    @property
    def needs_density(self) -> bool:
        return self.sparsify is not None

    @property
    def elects_sign(self) -> bool:
        return self.consensus is disjoint_mean


def trim(delta: Tensor, density: float, _: Generator) -> Tensor:
    """TIES step 1, per module: keep the int(density * n) largest entries, and all equal to the last."""
    kept = int(density * delta.numel())
    if kept == 0:
        return delta.zero_()
    dropped = delta.numel() - kept
    magnitudes = delta.abs().flatten().numpy()
    magnitudes.partition(dropped)  # in place, without indices: a third of the time and memory of kthvalue
    below = np.nextafter(magnitudes[dropped], np.float32(-1))  # hardshrink drops entries equal to its bound
    return delta.copy_(hardshrink(delta, float(below))) if below > 0 else delta


def drop_and_rescale(delta: Tensor, density: float, generator: Generator) -> Tensor:
    """DARE: keep each entry with probability `density`, divided by `density`. The expectation is `delta`."""
    kept = torch.rand(delta.shape, generator=generator)
    torch.lt(kept, density, out=kept)  # 1.0 or 0.0: torch has no vector code for comparisons to bool
    return delta.mul_(kept).div_(density)


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float], _: MajoritySignMethod) -> Tensor:
    """Sum of w_i * D_i."""
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total.add_(delta, alpha=weight)
    return total


def disjoint_mean(deltas: Sequence[Tensor], weights: Sequence[float], majority: MajoritySignMethod) -> Tensor:
    """TIES steps 2 and 3 in PEFT's variant: elect signs, then average the entries with the elected sign.

    The election does NOT use the weights. The elected sign is the sign of the sum of D_i ("total") or of the
    sum of sign(D_i) ("frequency"). Zero counts as positive. The result is the sum of w_i * D_i over the
    members whose entry has the elected sign, divided by the NUMBER of these members and not by the sum of
    their weights. Members whose entry is zero do not count.
    """
    result = torch.empty_like(deltas[0])
    for rows in slices(result, ENTRIES_AT_ONCE):
        result[rows] = _mean_of_majority([delta[rows] for delta in deltas], weights, majority)
    return result


def _mean_of_majority(
    deltas: Sequence[Tensor], weights: Sequence[float], majority: MajoritySignMethod
) -> Tensor:
    """`disjoint_mean` with floats in place of booleans, which is three times as fast."""
    votes = torch.zeros_like(deltas[0])
    for delta in deltas:
        votes.add_(delta if majority == "total" else delta.sign())
    elected = torch.ge(votes, 0, out=votes).mul_(2).sub_(1)  # 1.0 or -1.0
    total, agreeing = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = delta.mul(elected).relu_()
        total.add_(agrees, alpha=weight)
        agreeing.add_(agrees.sign_())
    return total.mul_(elected).div_(agreeing.clamp_(min=1))


def slices(tensor: Tensor, entries: int) -> Iterator[slice]:
    """Ranges of the first axis of `tensor` with about `entries` entries each."""
    step = max(1, entries * len(tensor) // max(1, tensor.numel()))
    return (slice(start, start + step) for start in range(0, len(tensor), step))


METHODS: dict[str, CombinationMethod] = {
    "stack": CombinationMethod(
        summary="The sum of each delta times its weight. The factors are concatenated.",
        guarantee="Exact up to float32 rounding: the weighted sum of deltas, whose rank is the sum of ranks.",
        default_rank="sum",
        takes_rank=False,
        exact=True,
    ),
    "linear": CombinationMethod(
        summary="The stack as one adapter. With a rank option, its best approximation of that rank.",
        guarantee="Exact without a rank option. With it, no adapter of that rank is closer (Frobenius norm).",
        paper="2212.04089",
        default_rank="sum",
        exact=True,
    ),
    "svd": CombinationMethod(
        summary="The best approximation of the stack at a rank, by default the largest rank of a member.",
        guarantee="No adapter of that rank is closer to the stack (Frobenius norm). Exact at full rank.",
    ),
    "ties": CombinationMethod(
        summary="Trim small entries, elect a sign for each entry, and average the members with that sign.",
        guarantee="A mean, not a sum; it may be far from the stack. One adapter at density 1 is unchanged.",
        paper="2306.01708",
        sparsify=trim,
        consensus=disjoint_mean,
    ),
    "dare_linear": CombinationMethod(
        summary="Drop entries at random, rescale the rest, and sum.",
        guarantee="Before truncation, the mean over seeds is the stack. The same seed gives the same result.",
        paper="2311.03099",
        sparsify=drop_and_rescale,
        consensus=weighted_sum,
        seeded=True,
    ),
    "dare_ties": CombinationMethod(
        summary="Drop entries at random, rescale the rest, then elect signs and average as TIES does.",
        guarantee="A mean, not a sum. One seed gives one result. One adapter at density 1 is unchanged.",
        paper="2311.03099",
        sparsify=drop_and_rescale,
        consensus=disjoint_mean,
        seeded=True,
    ),
    "magnitude_prune": CombinationMethod(
        summary="Trim small entries, and sum.",
        guarantee="At density 1, the stack up to truncation. Below 1, large entries are unchanged.",
        sparsify=trim,
        consensus=weighted_sum,
    ),
}
