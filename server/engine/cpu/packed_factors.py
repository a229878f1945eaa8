"""An adapter's factors for one layer, packed for the CPU kernels: all slices together, at their true rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.nn import functional

from lora_compose.server.engine.cpu.row_terms import RowTerms

RANKS_AT_ONCE = 4
"""`kernel` computes this many ranks together. Ranks are padded with zeros to a multiple of it."""


class PackedPair(NamedTuple):
    """The delta `lora_B @ lora_A`, with scaling and weight folded into `lora_B`.

    Use keywords and names, not positions: other classes have B first, and a swap would type-check."""

    lora_A: torch.Tensor
    """`(r, d_in)`."""
    lora_B: torch.Tensor
    """`(d_out, r)`."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Ranks `r0:r1` of a pack write outputs `o0:o1` through `lora_b_t` `(r1 − r0, o1 − o0)`."""

    r0: int
    r1: int
    o0: int
    o1: int
    lora_b_t: torch.Tensor


@dataclass(frozen=True, eq=False)
class Pack:
    """`lora_a` is `(R, d_in)`, R the sum of the slices' ranks; the layer's output has `width` columns.

    All tensors are contiguous.
    """

    lora_a: torch.Tensor
    slices: tuple[Slice, ...]
    width: int
    terms: RowTerms | None = None
    """What DoRA and a bias add; None without them."""

    @property
    def rank(self) -> int:
        """R."""
        return self.lora_a.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of the factors, and of the terms."""
        factors = self.lora_a.nbytes + sum(part.lora_b_t.nbytes for part in self.slices)
        return factors if self.terms is None else factors + self.terms.nbytes

    @cached_property
    def addresses(self) -> list[tuple[int, int, int, int, int]]:
        """For each slice: the addresses of A and Bᵀ, rank, first output, width.

        Valid while the pack exists."""
        return [
            (self.lora_a[p.r0].data_ptr(), p.lora_b_t.data_ptr(), p.r1 - p.r0, p.o0, p.o1 - p.o0)
            for p in self.slices
        ]

    def add_delta(self, y: torch.Tensor, x: torch.Tensor, weights: torch.Tensor | None) -> None:
        """`y += weights · (x Aᵀ) Bᵀ` in place, on torch's threads.

        x is `(n, d_in)`, y `(n, width)`, weights `(n, 1)`; None means that all are 1.
        """
        shrunk = functional.linear(x, self.lora_a)
        if weights is not None:
            shrunk.mul_(weights)
        for part in self.slices:
            y[:, part.o0 : part.o1].addmm_(shrunk[:, part.r0 : part.r1], part.lora_b_t)


@dataclass(frozen=True, eq=False)
class EmbeddingPack:
    """The factors for an embedding: `lora_b` is `(V, r)`, `lora_a` `(r, d)`, both contiguous."""

    lora_a: torch.Tensor
    lora_b: torch.Tensor

    @property
    def nbytes(self) -> int:
        """The bytes of the factors."""
        return self.lora_a.nbytes + self.lora_b.nbytes


def pack_layer(
    factors: Sequence[PackedPair | None], widths: Sequence[int], terms: RowTerms | None = None
) -> Pack | None:
    """Pack an adapter's factors for one layer: a pair per slice, or None. None if no slice has factors."""
    starts = [0, *accumulate(widths)]
    used = [(pair, o0) for pair, o0 in zip(factors, starts[:-1], strict=True) if pair is not None]
    if not used:
        return None
    slices: list[Slice] = []
    padded = [(_padded(pair.lora_A), _padded(pair.lora_B.T), o0) for pair, o0 in used]
    for lora_a, lora_b_t, o0 in padded:
        r0 = slices[-1].r1 if slices else 0
        slices.append(Slice(r0, r0 + len(lora_a), o0, o0 + lora_b_t.shape[1], lora_b_t))
    return Pack(torch.cat([lora_a for lora_a, _, _ in padded]), tuple(slices), starts[-1], terms)


def _padded(factor: torch.Tensor) -> torch.Tensor:
    """`(r, n)`, contiguous, with rows of zeros added."""
    return functional.pad(factor, (0, 0, 0, -len(factor) % RANKS_AT_ONCE)).contiguous()
