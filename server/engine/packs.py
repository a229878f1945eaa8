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

    def moved(self, ranks: int) -> "Slice":
        """The same, `ranks` further down."""
        return Slice(self.r0 + ranks, self.r1 + ranks, self.o0, self.o1, self.lora_b_t)


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
    def _lora_b_t(self) -> torch.Tensor | None:
        """`(R, width)`, block-diagonal; None where that wastes more than it saves."""
        if len(self.slices) == 1 and self.slices[0].lora_b_t.shape[1] == self.width:
            return self.slices[0].lora_b_t
        if self.rank * self.width > BLOCK_DIAGONAL_ELEMENTS:
            return None
        whole = self.lora_a.new_zeros(self.rank, self.width)
        for part in self.slices:
            whole[part.r0 : part.r1, part.o0 : part.o1] = part.lora_b_t
        return whole

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Aᵀ and Bᵀ for numpy, on the same memory."""
        whole = self._lora_b_t
        return self.lora_a.numpy().T, None if whole is None else whole.numpy()

    def add_delta(self, y: torch.Tensor, x: torch.Tensor, weights: np.ndarray | None) -> None:
        """`y += (x Aᵀ ∘ weights) Bᵀ` in place, on torch's threads.

        x is `(n, d_in)`, y `(n, width)`, weights `(n, R)` or `(R,)`; None stands for ones.
        """
        shrunk = functional.linear(x, self.lora_a)
        if weights is not None:
            shrunk.mul_(torch.from_numpy(weights))
        for part in self.slices:
            y[:, part.o0 : part.o1].addmm_(shrunk[:, part.r0 : part.r1], part.lora_b_t)

    def add_delta_alone(self, y: np.ndarray, x: np.ndarray, weights: np.ndarray | None) -> None:
        """The same on the calling thread alone."""
        lora_a_t, lora_b_t = self._arrays
        shrunk = x @ lora_a_t
        if weights is not None:
            shrunk *= weights
        if lora_b_t is not None:
            y += shrunk @ lora_b_t
            return
        for part in self.slices:
            y[:, part.o0 : part.o1] += shrunk[:, part.r0 : part.r1] @ part.lora_b_t.numpy()


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
    """A stack's packs for one layer as one; None in and out where there are no factors."""
    present = [(member, pack) for member, pack in enumerate(packs) if pack is not None]
    if not present:
        return None
    starts = [0, *accumulate(pack.rank for _, pack in present)]
    return Pack(
        torch.cat([pack.lora_a for _, pack in present]),
        tuple(
            part.moved(start)
            for start, (_, pack) in zip(starts, present, strict=False)
            for part in pack.slices
        ),
        present[0][1].width,
        np.concatenate([np.full(pack.rank, member) for member, pack in present]),
    )
