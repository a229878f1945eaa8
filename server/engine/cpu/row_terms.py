"""What DoRA and biases add to a layer: each output row of the base layer is scaled and shifted.

An adapter of weight w changes a layer's output `y = W x + b` by `w (change * (y - b) + bias)`, besides its
factors. `b` is the base layer's own bias, which DoRA does not scale. The changes of several adapters are
added before they multiply. While a composition with DoRA is fused, `y` is already scaled by
`1 + fused_change`, so other requests scale by `(1 + change) / (1 + fused_change)`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lora_compose.server.engine.cpu.batch import Members, ScaledShare, Scaling

ScaleRows = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""`kernel.scale_rows`."""


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a tensor for the kernels, where bfloat16 is uint16."""
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    array: np.ndarray = bits.numpy()
    return array


@dataclass(frozen=True, eq=False)
class RowTerms:
    """`y += change * (y - base_bias) + bias`. All are `(width,)` and float32, one entry for each output."""

    change: torch.Tensor
    bias: torch.Tensor
    base_bias: torch.Tensor | None
    """The bias of the base layer, if it is in y."""

    @property
    def nbytes(self) -> int:
        """The bytes of the vectors that are the adapter's own."""
        return self.change.nbytes + self.bias.nbytes + self.shift.nbytes

    @cached_property
    def shift(self) -> torch.Tensor:
        """`y += change * y + shift`."""
        shift = self.bias if self.base_bias is None else self.bias - self.change * self.base_bias
        return shift.contiguous()


def terms_of(share: ScaledShare, known: Mapping[str, RowTerms | None]) -> RowTerms | None:
    """The terms of a share's rows in one layer, from those of its members there. None if nothing changes.

    A weight that differs between rows is not part of it."""
    if share.only_member is not None:
        return known[share.only_member]
    found = [terms for name in (*share.members, *share.fused) if (terms := known[name]) is not None]
    if not found:
        return None
    zero = torch.zeros_like(found[0].change)
    change, fused_change = _sum(share.members, known, zero), _sum(share.fused, known, zero)
    bias = zero.clone()
    for name, weight in share.members.items():
        if (terms := known[name]) is not None:
            bias += weight * terms.bias
    return RowTerms((change - fused_change) / (1 + fused_change), bias, found[0].base_bias)


def _sum(members: Members, known: Mapping[str, RowTerms | None], zero: torch.Tensor) -> torch.Tensor:
    total = zero.clone()
    for name, weight in members.items():
        if (terms := known[name]) is not None:
            total += weight * terms.change
    return total


class LayerScaling:
    """Scales and shifts the rows of a batch in one layer, in place."""

    def __init__(self, scaling: Scaling, terms: Sequence[RowTerms | None], kernel: ScaleRows | None) -> None:
        self._scaling = scaling
        self._kernel = kernel
        used = [
            (share, found) for share, found in zip(scaling.shares, terms, strict=True) if found is not None
        ]
        self._used = used  # keeps their memory alive: the table holds only addresses
        self._table = np.array(
            [(s.start, s.end, t.change.data_ptr(), t.shift.data_ptr()) for s, t in used], np.int64
        )

    def apply(self, y: torch.Tensor) -> None:
        """y is `(rows, width)` and contiguous."""
        if not self._used:
            return
        if self._scaling.height > len(y):
            raise IndexError(f"row {self._scaling.height - 1} is out of range: there are {len(y)} rows")
        if self._kernel is not None:
            self._kernel(as_numpy(y), self._scaling.rows, self._scaling.weights, self._table)
            return
        for share, terms in self._used:
            rows = torch.from_numpy(self._scaling.rows[share.start : share.end])
            weights = torch.from_numpy(self._scaling.weights[share.start : share.end])[:, None]
            part = y[rows].float()
            y[rows] = (part + weights * (terms.change * part + terms.shift)).to(y.dtype)
