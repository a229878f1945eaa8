"""The CPU kernel for small products: one call adds all deltas of a batch in one layer. numba compiles it.

A decoding step multiplies so little that the calls cost more than the arithmetic: a matrix product of a
library costs several microseconds before it starts, and a mixed batch needs two for each adapter and slice.
Each row is computed by itself and in a fixed order that does not depend on the rest of the batch, so the same
row gives the same bits.
"""

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from lora_compose.server.engine.cpu.packed_factors import RANKS_AT_ONCE

COLUMNS = ("start", "end", "lora_a", "lora_b", "rank", "output", "width")
"""The columns of the table: a range of `rows` and `weights`; the addresses of A `(rank, d_in)` and Bᵀ
`(rank, width)`, float32 and contiguous; and the first of the outputs that they write."""

# Sums may be reordered, so that they can be vectorized. NaN and infinity keep their meaning.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}


@intrinsic  # type: ignore[untyped-decorator]
def _float_pointer(_: Any, address: Any) -> Any:
    """Convert an address to a pointer to float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return numba.types.CPointer(numba.types.float32)(address), generate


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def _add_two(
    y: tuple[np.ndarray, np.ndarray],
    x: tuple[np.ndarray, np.ndarray],
    factors: tuple[np.ndarray, np.ndarray],
    weights: tuple[float, float],
) -> None:
    """`y += weight · (x Aᵀ) Bᵀ` for two rows, `RANKS_AT_ONCE` at a time, so that each value that is read is
    used eight times."""
    y0, y1 = y
    x0, x1 = x
    lora_a, lora_b = factors
    w0, w1 = weights
    for r in range(0, len(lora_a), RANKS_AT_ONCE):
        s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = np.float32(0)
        for i in range(len(x0)):
            s0 += x0[i] * lora_a[r, i]
            s1 += x0[i] * lora_a[r + 1, i]
            s2 += x0[i] * lora_a[r + 2, i]
            s3 += x0[i] * lora_a[r + 3, i]
            t0 += x1[i] * lora_a[r, i]
            t1 += x1[i] * lora_a[r + 1, i]
            t2 += x1[i] * lora_a[r + 2, i]
            t3 += x1[i] * lora_a[r + 3, i]
        s0, s1, s2, s3 = s0 * w0, s1 * w0, s2 * w0, s3 * w0
        t0, t1, t2, t3 = t0 * w1, t1 * w1, t2 * w1, t3 * w1
        for i in range(len(y0)):
            b0, b1, b2, b3 = lora_b[r, i], lora_b[r + 1, i], lora_b[r + 2, i], lora_b[r + 3, i]
            y0[i] += s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
            y1[i] += t0 * b0 + t1 * b1 + t2 * b2 + t3 * b3


SIGNATURE = numba.void(
    numba.float32[:, ::1], numba.float32[:, ::1], numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]
)


@numba.njit(SIGNATURE)  # type: ignore[untyped-decorator]
def add_deltas(
    y: np.ndarray, x: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray
) -> None:
    """`y[row] += weight · (x[row] Aᵀ) Bᵀ` for each row of each line of the table.

    x is `(n, d_in)`, y `(n, outputs)`, both float32 and contiguous. Nothing is checked: the caller must
    ensure that the rows and the memory exist.
    """
    spare = np.empty(y.shape[1], np.float32)
    for line in range(len(table)):
        start, end = table[line, 0], table[line, 1]
        rank, first, width = table[line, 4], table[line, 5], table[line, 6]
        lora_a = numba.carray(_float_pointer(table[line, 2]), (rank, x.shape[1]))
        lora_b = numba.carray(_float_pointer(table[line, 3]), (rank, width))
        for i in range(start, end, 2):
            j = min(i + 1, end - 1)
            y0, y1 = y[rows[i], first : first + width], y[rows[j], first : first + width]
            if i == j:
                # pad to two rows, so that a row's result does not depend on whether the count is odd
                y1 = spare[:width]
            _add_two((y0, y1), (x[rows[i]], x[rows[j]]), (lora_a, lora_b), (weights[i], weights[j]))


ROW_SIGNATURE = numba.void(
    numba.float32[:, ::1], numba.int64[::1], numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]
)


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def _add_product(y: np.ndarray, weight: float, b: np.ndarray, lora_a: np.ndarray) -> None:
    """`y += weight · b A` for one row."""
    for r in range(len(b)):
        factor = weight * b[r]
        for i in range(len(y)):
            y[i] += factor * lora_a[r, i]


@numba.njit(ROW_SIGNATURE, fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def add_embedding_deltas(
    y: np.ndarray, tokens: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray
) -> None:
    """`y[row] += weight · B[tokens[row]] A` for each row of each line of the table.

    The columns of the table: start, end, the addresses of B `(V, rank)` and A `(rank, d)`, rank, V. y is
    `(n, d)`. A token that B has no row for changes nothing. Otherwise as `add_deltas`."""
    for line in range(len(table)):
        rank, vocabulary = table[line, 4], table[line, 5]
        lora_b = numba.carray(_float_pointer(table[line, 2]), (vocabulary, rank))
        lora_a = numba.carray(_float_pointer(table[line, 3]), (rank, y.shape[1]))
        for i in range(table[line, 0], table[line, 1]):
            token = tokens[rows[i]]
            if 0 <= token < vocabulary:
                _add_product(y[rows[i]], weights[i], lora_b[token], lora_a)


SCALING_SIGNATURE = numba.void(
    numba.float32[:, ::1], numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]
)


@numba.njit(SCALING_SIGNATURE, fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def scale_rows(y: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray) -> None:
    """`y[row] += weight · (change * y[row] + shift)` for each row of each line of the table.

    A line is a range of `rows` and `weights`, and the addresses of `change` and `shift`, each `(width,)`
    float32. y is `(n, width)`. Nothing is checked, as in `add_deltas`.
    """
    width = y.shape[1]
    for line in range(len(table)):
        change = numba.carray(_float_pointer(table[line, 2]), (width,))
        shift = numba.carray(_float_pointer(table[line, 3]), (width,))
        for i in range(table[line, 0], table[line, 1]):
            row, weight = y[rows[i]], weights[i]
            for j in range(width):
                row[j] += weight * (change[j] * row[j] + shift[j])
