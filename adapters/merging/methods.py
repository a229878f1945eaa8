"""The combination methods, one row each: sparsify x consensus x rank of the result x guarantee.

All work on true deltas, D_i = scaling_i * B_i @ A_i, of one module at a time; a module an adapter lacks is
a zero there and so takes no part. PEFT's methods of the same names without `_svd` sum A and B apart, which
adds cross terms; these correspond to its `cat`, `svd` and `*_svd`. To add a method: add a row here and its
name in `method_options.py`, then its law in tests/adapters/merging/test_methods.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from lora_compose.adapters.composition.composition import MajoritySignMethod

Sparsify = Callable[[Tensor, float, Generator], Tensor]
"""(delta, density, generator) -> delta of the same shape some entries zero. May overwrite its argument."""

Consensus = Callable[[Sequence[Tensor], Sequence[float], MajoritySignMethod], Tensor]
"""(deltas, weights, majority_sign_method) -> one dense delta."""


@dataclass(frozen=True)
class CombinationMethod:
    """A row of the table."""

    summary: str
    guarantee: str
    paper: str | None = None
    """arXiv number of where it comes from."""
    sparsify: Sparsify | None = None
    consensus: Consensus | None = None
    """None: the plain weighted sum, which never leaves the thin factors."""
    default_rank: Literal["sum", "largest"] = "largest"
    """Without a rank option: the sum of the members' ranks, or the largest member's rank."""
    takes_rank: bool = True
    exact: bool = False
    """Without a rank option the result is the stack, up to rounding."""
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
    """TIES step 1, per module: keep the int(density * n) largest entries, and any that tie with the last."""
    kept = int(density * delta.numel())
    if kept == 0:
        return delta.zero_()
    dropped = delta.numel() - kept
    magnitudes = delta.abs().flatten().numpy()
    magnitudes.partition(dropped)  # in place and without indices: a third of kthvalue's time and memory
    return delta.masked_fill_(delta.abs() < float(magnitudes[dropped]), 0.0)


def drop_and_rescale(delta: Tensor, density: float, generator: Generator) -> Tensor:
    """DARE: keep each entry with probability `density` and divide by it: the expectation is the delta."""
    dropped = torch.rand(delta.shape, generator=generator) >= density
    return delta.masked_fill_(dropped, 0.0).div_(density)


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float], _: MajoritySignMethod) -> Tensor:
    """Sum of w_i * D_i."""
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total.add_(delta, alpha=weight)
    return total


def disjoint_mean(deltas: Sequence[Tensor], weights: Sequence[float], majority: MajoritySignMethod) -> Tensor:
    """TIES steps 2 and 3 in PEFT's variant: elect a sign for each entry, then average what agrees with it.

    The sign is elected WITHOUT the weights: that of the sum of D_i ("total") or of the sum of sign(D_i)
    ("frequency"), zero counting as positive. The result is the sum of w_i * D_i over the members whose
    entry has the elected sign, divided by the NUMBER of them (zeros do not count), not by the sum of their
    weights.
    """
    votes = torch.zeros_like(deltas[0])
    for delta in deltas:
        votes.add_(delta if majority == "total" else delta.sign())
    positive = votes >= 0
    total, agreeing = votes.zero_(), torch.zeros_like(votes, dtype=torch.int16)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(positive, delta > 0, delta < 0)
        total.add_(delta.where(agrees, 0.0), alpha=weight)
        agreeing.add_(agrees)
    return total.div_(agreeing.clamp_(min=1))


METHODS: dict[str, CombinationMethod] = {
    "stack": CombinationMethod(
        summary="Every delta times its weight, summed; the factors are concatenated.",
        guarantee="Exact: the weighted sum of true deltas up to float32 rounding, at the sum of ranks.",
        default_rank="sum",
        takes_rank=False,
        exact=True,
    ),
    "linear": CombinationMethod(
        summary="The stack as one adapter; given a rank, its best approximation of that rank.",
        guarantee="Exact without a rank; with one, no adapter of that rank is closer (Frobenius).",
        paper="2212.04089",
        default_rank="sum",
        exact=True,
    ),
    "svd": CombinationMethod(
        summary="The stack's best approximation of a given rank, by default the largest member's.",
        guarantee="No adapter of that rank is closer to the stack (Frobenius); exact at full rank.",
    ),
    "ties": CombinationMethod(
        summary="Trim small entries, elect a sign for each entry, average the members that agree with it.",
        guarantee="A mean, not a sum. One adapter at density 1 is itself; no closeness to the stack.",
        paper="2306.01708",
        sparsify=trim,
        consensus=disjoint_mean,
    ),
    "dare_linear": CombinationMethod(
        summary="Drop entries at random, rescale the rest, sum.",
        guarantee="Before truncation, the stack in expectation over seeds; one seed gives one result.",
        paper="2311.03099",
        sparsify=drop_and_rescale,
        consensus=weighted_sum,
        seeded=True,
    ),
    "dare_ties": CombinationMethod(
        summary="Drop entries at random, rescale the rest, then the sign election and mean of TIES.",
        guarantee="A mean, not a sum; one seed gives one result. One adapter at density 1 is itself.",
        paper="2311.03099",
        sparsify=drop_and_rescale,
        consensus=disjoint_mean,
        seeded=True,
    ),
    "magnitude_prune": CombinationMethod(
        summary="Trim small entries, sum.",
        guarantee="The stack at density 1 up to truncation; below it, large entries survive unchanged.",
        sparsify=trim,
        consensus=weighted_sum,
    ),
}
