"""The CPU kernels for small products: one call adds all deltas of a batch in one layer. numba compiles them.

A decoding step multiplies so little that the calls cost more than the arithmetic: a matrix product of a
library costs several microseconds before it starts, and a mixed batch needs two for each adapter and slice.
Each row is computed by itself and in a fixed order that does not depend on the rest of the batch, so the same
row gives the same bits.

In bfloat16, factors and inputs are widened to float32 where they are used, sums are float32, and an output is
rounded once, after all deltas of its layer.
"""

import numba
import numpy as np

from lora_compose.server.engine.cpu.numba_numbers import (
    FAST_MATH,
    bfloat16_pointer,
    float_pointer,
    narrow,
    widen,
    widen_row,
)
from lora_compose.server.engine.cpu.packed_factors import RANKS_AT_ONCE

COLUMNS = ("start", "end", "lora_a", "lora_b", "rank", "output", "width")
"""The columns of the table: a range of `rows` and `weights`; the addresses of A `(rank, d_in)` and Bᵀ
`(rank, width)`, contiguous and of the dtype of y; and the first of the outputs that they write."""


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
            a0, a1 = widen(lora_a[r, i]), widen(lora_a[r + 1, i])
            a2, a3 = widen(lora_a[r + 2, i]), widen(lora_a[r + 3, i])
            s0 += x0[i] * a0
            s1 += x0[i] * a1
            s2 += x0[i] * a2
            s3 += x0[i] * a3
            t0 += x1[i] * a0
            t1 += x1[i] * a1
            t2 += x1[i] * a2
            t3 += x1[i] * a3
        s0, s1, s2, s3 = s0 * w0, s1 * w0, s2 * w0, s3 * w0
        t0, t1, t2, t3 = t0 * w1, t1 * w1, t2 * w1, t3 * w1
        for i in range(len(y0)):
            b0, b1 = widen(lora_b[r, i]), widen(lora_b[r + 1, i])
            b2, b3 = widen(lora_b[r + 2, i]), widen(lora_b[r + 3, i])
            y0[i] += s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
            y1[i] += t0 * b0 + t1 * b1 + t2 * b2 + t3 * b3


@numba.njit  # type: ignore[untyped-decorator]
def _add_share(
    y: np.ndarray,
    x: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
    weights: np.ndarray,
    first: int,
) -> None:
    """`y[row] += weight · (x[row] Aᵀ) Bᵀ` for each of the rows, in the outputs from `first` on."""
    end = first + factors[1].shape[1]
    for i in range(0, len(rows), 2):
        j = min(i + 1, len(rows) - 1)
        y0, y1 = y[rows[i], first:end], y[rows[j], first:end]
        if i == j:
            # pad to two rows, so that a row's result does not depend on whether the count is odd
            y1 = np.empty(end - first, np.float32)
        _add_two((y0, y1), (x[rows[i]], x[rows[j]]), factors, (weights[i], weights[j]))


SIGNATURE = numba.void(
    *(numba.int64, numba.int64, numba.types.UniTuple(numba.int64, 3)),
    *(numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]),
)
"""Tensors are given by address, because making an array of each takes as long as a small product."""


@numba.njit  # type: ignore[untyped-decorator]
def add_deltas(
    y_address: int,
    x_address: int,
    shape: tuple[int, int, int],
    rows: np.ndarray,
    weights: np.ndarray,
    table: np.ndarray,
) -> None:
    """`y[row] += weight · (x[row] Aᵀ) Bᵀ` for each row of each line of the table.

    x is `(n, d_in)`, y `(n, outputs)`, both float32 and contiguous; `shape` is n, d_in, outputs. Nothing is
    checked: the caller must ensure that the rows and the memory exist.
    """
    n, d_in, outputs = shape
    y = numba.carray(float_pointer(y_address), (n, outputs))
    x = numba.carray(float_pointer(x_address), (n, d_in))
    for line in table:
        start, end, rank = line[0], line[1], line[4]
        lora_a = numba.carray(float_pointer(line[2]), (rank, d_in))
        lora_b = numba.carray(float_pointer(line[3]), (rank, line[6]))
        _add_share(y, x, (lora_a, lora_b), rows[start:end], weights[start:end], line[5])


@numba.njit  # type: ignore[untyped-decorator]
def _places(rows: np.ndarray, table: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows that the table uses, each once, and for each entry of `rows` its place among them."""
    place_of, places = np.full(height, -1), np.empty(len(rows), np.int64)
    used, count = np.empty(len(rows), np.int64), 0
    for line in table:
        for i in range(line[0], line[1]):
            row = rows[i]
            if place_of[row] < 0:
                place_of[row], used[count] = count, row
                count += 1
            places[i] = place_of[row]
    return used[:count], places


@numba.njit  # type: ignore[untyped-decorator]
def _add_row(y: np.ndarray, delta: np.ndarray) -> None:
    for i in range(len(delta)):
        y[i] = narrow(widen(y[i]) + delta[i])


@numba.njit  # type: ignore[untyped-decorator]
def add_deltas_bfloat16(
    y_address: int,
    x_address: int,
    shape: tuple[int, int, int],
    rows: np.ndarray,
    weights: np.ndarray,
    table: np.ndarray,
) -> None:
    """`add_deltas` for bfloat16 x, y and factors. Each output is rounded once."""
    n, d_in, outputs = shape
    y = numba.carray(bfloat16_pointer(y_address), (n, outputs))
    x = numba.carray(bfloat16_pointer(x_address), (n, d_in))
    used, places = _places(rows, table, n)
    inputs = np.empty((len(used), d_in), np.float32)
    deltas = np.zeros((len(used), outputs), np.float32)
    for i in range(len(used)):
        widen_row(inputs[i], x[used[i]])
    for line in table:
        start, end, rank = line[0], line[1], line[4]
        lora_a = numba.carray(bfloat16_pointer(line[2]), (rank, d_in))
        lora_b = numba.carray(bfloat16_pointer(line[3]), (rank, line[6]))
        _add_share(deltas, inputs, (lora_a, lora_b), places[start:end], weights[start:end], line[5])
    for i in range(len(used)):
        _add_row(y[used[i]], deltas[i])


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


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def add_embedding_deltas(
    y: np.ndarray, tokens: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray
) -> None:
    """`y[row] += weight · B[tokens[row]] A` for each row of each line of the table.

    The columns of the table: start, end, the addresses of B `(V, rank)` and A `(rank, d)`, rank, V. y is
    `(n, d)`. A token that B has no row for changes nothing. Otherwise as `add_deltas`."""
    for line in range(len(table)):
        rank, vocabulary = table[line, 4], table[line, 5]
        lora_b = numba.carray(float_pointer(table[line, 2]), (vocabulary, rank))
        lora_a = numba.carray(float_pointer(table[line, 3]), (rank, y.shape[1]))
        for i in range(table[line, 0], table[line, 1]):
            token = tokens[rows[i]]
            if 0 <= token < vocabulary:
                _add_product(y[rows[i]], weights[i], lora_b[token], lora_a)


SCALING_SIGNATURE = numba.void(
    numba.float32[:, ::1], numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]
)


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def scale_rows(y: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray) -> None:
    """`y[row] += weight · (change * y[row] + shift)` for each row of each line of the table.

    A line is a range of `rows` and `weights`, and the addresses of `change` and `shift`, each `(width,)`
    float32. y is `(n, width)`. Nothing is checked, as in `add_deltas`.
    """
    for line in table:
        change = numba.carray(float_pointer(line[2]), (y.shape[1],))
        shift = numba.carray(float_pointer(line[3]), (y.shape[1],))
        for i in range(line[0], line[1]):
            row, weight = y[rows[i]], weights[i]
            for j in range(len(row)):
                row[j] += weight * (change[j] * row[j] + shift[j])


BFLOAT16_SCALING_SIGNATURE = numba.void(
    numba.uint16[:, ::1], numba.int64[::1], numba.float32[::1], numba.int64[:, ::1]
)


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def scale_rows_bfloat16(y: np.ndarray, rows: np.ndarray, weights: np.ndarray, table: np.ndarray) -> None:
    """`scale_rows` for bfloat16 y. `change` and `shift` are float32."""
    for line in table:
        change = numba.carray(float_pointer(line[2]), (y.shape[1],))
        shift = numba.carray(float_pointer(line[3]), (y.shape[1],))
        for i in range(line[0], line[1]):
            row, weight = y[rows[i]], weights[i]
            for j in range(len(row)):
                number = widen(row[j])
                row[j] = narrow(number + weight * (change[j] * number + shift[j]))


def compile_for(*, is_bfloat16: bool) -> None:
    """Compile the functions of one dtype now. The others are compiled at their first call, in a second."""
    if is_bfloat16:
        add_deltas_bfloat16.compile(SIGNATURE)
        scale_rows_bfloat16.compile(BFLOAT16_SCALING_SIGNATURE)
    else:
        add_deltas.compile(SIGNATURE)
        scale_rows.compile(SCALING_SIGNATURE)
        add_embedding_deltas.compile(ROW_SIGNATURE)
