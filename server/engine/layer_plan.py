"""What a batch does in one layer: made once a batch, run once a step.

Decoding runs the same plan for many steps, so everything that does not depend on the numbers is done when the
plan is made: which products there are, and where their results go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from server.engine.packs import Pack

# Up to this many multiplications a product takes numpy's BLAS, which does those on the calling thread. torch
# would wake its OpenMP team for each, and on a machine whose cores also serve HTTP the team's barrier costs
# ten times the arithmetic (docs/cpu-performance.md). Without a team torch is the slower one until much later.
SMALL_PRODUCT = 262_144
SMALL_PRODUCT_ALONE = 1 << 22


@dataclass(frozen=True, eq=False)
class Product:
    """One group's rows times one pack."""

    rows: slice
    pack: Pack
    weights: np.ndarray | None

    @property
    def count(self) -> int:
        """Rows."""
        count: int = self.rows.stop - self.rows.start
        return count

    @property
    def multiplications(self) -> int:
        """Of the larger of the two products."""
        return self.count * self.pack.rank * max(self.pack.lora_a.shape[1], self.pack.width)


class LayerPlan(Protocol):
    """`y[rows] += (x[rows] Aᵀ ∘ w) Bᵀ` for each product; x is `(rows, d_in)`, y `(rows, width)`, in place."""

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None: ...


def plan_layer(
    order: slice | np.ndarray, products: Sequence[Product], y: torch.Tensor, *, repeats: bool
) -> LayerPlan:
    """The plan for outputs like `y`, whose `order` has the products' rows together.

    One that repeats is worth preparing for.
    """
    limit = SMALL_PRODUCT_ALONE if torch.get_num_threads() == 1 else SMALL_PRODUCT
    is_small = y.dtype == torch.float32 and all(product.multiplications <= limit for product in products)
    if not is_small:
        return LargePlan(order, tuple(products))
    if not repeats:
        return OncePlan(order, tuple(products))
    if len(products) == 1 and products[0].count == len(y):
        return OnePlan(products[0])
    return SmallPlan(order, products, len(y))


@dataclass(frozen=True, eq=False)
class LargePlan:
    """On torch's threads."""

    order: slice | np.ndarray
    products: tuple[Product, ...]

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """See LayerPlan."""
        order = self.order if isinstance(self.order, slice) else torch.from_numpy(self.order)
        part, inputs = y[order], x[order]
        for product in self.products:
            product.pack.add_delta(part[product.rows], inputs[product.rows], product.weights)
        if not isinstance(order, slice):
            y[order] = part


@dataclass(frozen=True, eq=False)
class OncePlan:
    """On the calling thread, nothing prepared: a prompt is read once, and somebody waits for its token."""

    order: slice | np.ndarray
    products: tuple[Product, ...]

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """See LayerPlan."""
        outputs = y.numpy()
        part, inputs = outputs[self.order], x.numpy()[self.order]
        for product in self.products:
            product.pack.add_delta_alone(part[product.rows], inputs[product.rows], product.weights)
        if not isinstance(self.order, slice):
            outputs[self.order] = part


class Multiplication:
    """`output = (input Aᵀ ∘ w) Bᵀ` on the calling thread, into memory that is there already."""

    def __init__(self, product: Product, output: np.ndarray) -> None:
        pack = product.pack
        self._lora_a_t, parts = pack.arrays
        self._weights = product.weights
        self._shrunk = np.empty((product.count, pack.rank), dtype=np.float32)
        self._output = output
        self._lora_b_t = parts[0][1] if pack.block_diagonal is not None else None
        self._slices = [
            (self._shrunk[:, ranks], lora_b_t, output[:, outputs]) for ranks, lora_b_t, outputs in parts
        ]
        output[:] = 0  # where no slice writes

    def run(self, x: np.ndarray) -> None:
        """x is `(count, d_in)`."""
        np.dot(x, self._lora_a_t, self._shrunk)
        if self._weights is not None:
            np.multiply(self._shrunk, self._weights, self._shrunk)
        if self._lora_b_t is not None:
            np.dot(self._shrunk, self._lora_b_t, self._output)
            return
        for shrunk, lora_b_t, output in self._slices:
            np.matmul(shrunk, lora_b_t, output)


class OnePlan:
    """The whole batch wants one pack: no rows to sort."""

    def __init__(self, product: Product) -> None:
        self._delta = np.empty((product.count, product.pack.width), dtype=np.float32)
        self._multiplication = Multiplication(product, self._delta)

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """See LayerPlan."""
        self._multiplication.run(x.numpy())
        outputs = y.numpy()
        np.add(outputs, self._delta, outputs)


class SmallPlan:
    """Rows are sorted by product, multiplied, and sorted back: three copies for any number of products."""

    def __init__(self, order: slice | np.ndarray, products: Sequence[Product], rows: int) -> None:
        every = np.arange(rows)[order]
        pack = products[0].pack
        self._order = order if isinstance(order, slice) else every
        self._inputs = np.empty((len(every), pack.lora_a.shape[1]), dtype=np.float32)
        self._every = every
        # Zero stays where an adapter has no factors for this layer.
        self._first = np.zeros((len(every), pack.width), dtype=np.float32)
        self._rest: list[tuple[np.ndarray, np.ndarray]] = []
        self._multiplications: list[tuple[Multiplication, np.ndarray]] = []
        covered = 0
        for product in products:
            output = self._first[product.rows]
            if product.rows.start < covered:  # another member of a stack, on rows that have a delta already
                output = np.empty_like(output)
                self._rest.append((self._first[product.rows], output))
            covered = max(covered, product.rows.stop)
            self._multiplications.append((Multiplication(product, output), self._inputs[product.rows]))

    def add_deltas(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """See LayerPlan."""
        np.take(x.numpy(), self._every, 0, self._inputs, "clip")
        for multiplication, inputs in self._multiplications:
            multiplication.run(inputs)
        for first, other in self._rest:
            np.add(first, other, first)
        outputs = y.numpy()
        outputs[self._order] += self._first
