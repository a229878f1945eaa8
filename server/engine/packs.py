"""Factors as the CPU kernels want them: one layer, all of the layer's slices together, at their true rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch.nn import functional

# A block-diagonal B lets a packed layer's slices (q, k and v) share one expand product: fewer calls beat
# fewer multiplications, up to this many elements.
BLOCK_DIAGONAL_ELEMENTS = 1 << 17

Factors = tuple[torch.Tensor, torch.Tensor]
"""A `(r, d_in)` and B `(d_out, r)`, the scaling folded in."""


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

    `members` is `(R,)`: which member of a stack a rank belongs to, so that a request's weights can be applied
    between the two products.
    """

    lora_a: torch.Tensor
    slices: tuple[Slice, ...]
    width: int
    members: np.ndarray

    @property
    def rank(self) -> int:
        """R."""
        return self.lora_a.shape[0]

    @property
    def elements(self) -> int:
        """Of the factors that the products read."""
        return self.rank * (self.lora_a.shape[1] + self.width)

    @property
    def nbytes(self) -> int:
        """Of the factors themselves."""
        return self.lora_a.nbytes + sum(part.lora_b_t.nbytes for part in self.slices)

    @cached_property
    def block_diagonal(self) -> torch.Tensor | None:
        """All slices' B as one `(R, width)`; None where that wastes more than it saves."""
        if len(self.slices) == 1 and self.slices[0].lora_b_t.shape[1] == self.width:
            return self.slices[0].lora_b_t
        if self.rank * self.width > BLOCK_DIAGONAL_ELEMENTS:
            return None
        whole = self.lora_a.new_zeros(self.rank, self.width)
        for part in self.slices:
            whole[part.r0 : part.r1, part.o0 : part.o1] = part.lora_b_t
        return whole

    @cached_property
    def arrays(self) -> tuple[np.ndarray, list[tuple[slice, np.ndarray, slice]]]:
        """Aᵀ, and for each product with B its ranks, Bᵀ and outputs, for numpy and on the same memory."""
        whole = self.block_diagonal
        if whole is not None:
            return self.lora_a.numpy().T, [(slice(None), whole.numpy(), slice(None))]
        parts = [(slice(p.r0, p.r1), p.lora_b_t.numpy(), slice(p.o0, p.o1)) for p in self.slices]
        return self.lora_a.numpy().T, parts

    def add_delta_alone(self, y: np.ndarray, x: np.ndarray, weights: np.ndarray | None) -> None:
        """As `add_delta`, on the calling thread."""
        lora_a_t, parts = self.arrays
        shrunk = x @ lora_a_t
        if weights is not None:
            shrunk *= weights
        for ranks, lora_b_t, outputs in parts:
            y[:, outputs] += shrunk[:, ranks] @ lora_b_t

    def add_delta(self, y: torch.Tensor, x: torch.Tensor, weights: np.ndarray | None) -> None:
        """`y += (x Aᵀ ∘ weights) Bᵀ` in place, on torch's threads.

        x is `(n, d_in)`, y `(n, width)`, weights `(n, R)` or `(R,)`; None stands for ones.
        """
        shrunk = functional.linear(x, self.lora_a)
        if weights is not None:
            shrunk.mul_(torch.from_numpy(weights))
        for part in self.slices:
            y[:, part.o0 : part.o1].addmm_(shrunk[:, part.r0 : part.r1], part.lora_b_t)


def pack_layer(factors: Sequence[Factors | None], widths: Sequence[int]) -> Pack | None:
    """One adapter's factors for one layer, a pair per slice (None: no factors); None where there are none."""
    starts = [0, *accumulate(widths)]
    used = [(pair, o0) for pair, o0 in zip(factors, starts[:-1], strict=True) if pair is not None]
    if not used:
        return None
    slices: list[Slice] = []
    for (lora_a, lora_b), o0 in used:
        r0 = slices[-1].r1 if slices else 0
        slices.append(Slice(r0, r0 + len(lora_a), o0, o0 + len(lora_b), lora_b.T.contiguous()))
    lora_a = torch.cat([lora_a for (lora_a, _), _ in used])
    return Pack(lora_a, tuple(slices), starts[-1], np.zeros(len(lora_a), dtype=np.intp))


def join(packs: Sequence[Pack | None]) -> Pack | None:
    """A stack's packs for one layer as one; None in and out where there are no factors.

    Ranks that write the same outputs lie together, so that they share a product too.
    """
    present = [(member, pack) for member, pack in enumerate(packs) if pack is not None]
    if not present:
        return None
    outputs = sorted({(part.o0, part.o1) for _, pack in present for part in pack.slices})
    lora_a: list[torch.Tensor] = []
    members: list[np.ndarray] = []
    slices: list[Slice] = []
    for o0, o1 in outputs:
        parts = [
            (member, pack, part)
            for member, pack in present
            for part in pack.slices
            if (part.o0, part.o1) == (o0, o1)
        ]
        lora_a += [pack.lora_a[part.r0 : part.r1] for _, pack, part in parts]
        members += [np.full(part.r1 - part.r0, member) for member, _, part in parts]
        lora_b_t = torch.cat([part.lora_b_t for _, _, part in parts])
        r0 = slices[-1].r1 if slices else 0
        slices.append(Slice(r0, r0 + len(lora_b_t), o0, o1, lora_b_t))
    return Pack(torch.cat(lora_a), tuple(slices), present[0][1].width, np.concatenate(members))
