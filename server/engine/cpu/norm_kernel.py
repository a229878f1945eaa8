"""RMS norms on the calling thread, compiled by numba.

vLLM's own C++ functions start an OpenMP team for each norm, also for one row. With as many threads as cores,
each team may wait for a core that serves HTTP.
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

SIGNATURE = numba.void(
    *(numba.int64, numba.int64, numba.int64, numba.int64),
    *(numba.types.UniTuple(numba.int64, 2), numba.float64),
)


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def _scale(row: np.ndarray, epsilon: float) -> np.float32:
    """`1 / √(mean(row²) + ε)`."""
    squares = np.float32(0)
    for i in range(len(row)):
        squares += row[i] * row[i]
    return np.float32(1 / np.sqrt(squares / len(row) + epsilon))


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def _norm_row(y: np.ndarray, row: np.ndarray, weight: np.ndarray, epsilon: float) -> None:
    scale = _scale(row, epsilon)
    for i in range(len(row)):
        y[i] = row[i] * scale * weight[i]


@numba.njit(fastmath=FAST_MATH)  # type: ignore[untyped-decorator]
def _norm_row_bfloat16(y: np.ndarray, row: np.ndarray, weight: np.ndarray, epsilon: float) -> None:
    """`row` is float32; y and weight are bfloat16."""
    scale = _scale(row, epsilon)
    for i in range(len(row)):
        y[i] = narrow(row[i] * scale * widen(weight[i]))


@numba.njit  # type: ignore[untyped-decorator]
def _add_rows(residual: np.ndarray, x: np.ndarray) -> None:
    for i in range(len(x)):
        residual[i] += x[i]


@numba.njit  # type: ignore[untyped-decorator]
def _sum_rows(total: np.ndarray, residual: np.ndarray, x: np.ndarray) -> None:
    """`total = residual + x` in float32, and `residual` is that, rounded."""
    for i in range(len(x)):
        total[i] = widen(residual[i]) + widen(x[i])
        residual[i] = narrow(total[i])


@numba.njit  # type: ignore[untyped-decorator]
def norm(
    y_address: int, x_address: int, residual: int, weight: int, shape: tuple[int, int], epsilon: float
) -> None:
    """`y = weight · x / √(mean(x²) + ε)` for each row, all float32 and contiguous.

    Unless `residual` is 0, it is the address of rows to which x is added first, and whose norm is taken.
    `shape` is that of x. y may be x. Nothing is checked."""
    y = numba.carray(float_pointer(y_address), shape)
    x = numba.carray(float_pointer(x_address), shape)
    weights = numba.carray(float_pointer(weight), (shape[1],))
    for i in range(shape[0]):
        row = x[i]
        if residual != 0:
            row = numba.carray(float_pointer(residual), shape)[i]
            _add_rows(row, x[i])
        _norm_row(y[i], row, weights, epsilon)


@numba.njit  # type: ignore[untyped-decorator]
def norm_bfloat16(
    y_address: int, x_address: int, residual: int, weight: int, shape: tuple[int, int], epsilon: float
) -> None:
    """`norm` for bfloat16. The sums are float32, and each result is rounded once."""
    y = numba.carray(bfloat16_pointer(y_address), shape)
    x = numba.carray(bfloat16_pointer(x_address), shape)
    weights = numba.carray(bfloat16_pointer(weight), (shape[1],))
    row = np.empty(shape[1], np.float32)
    for i in range(shape[0]):
        if residual != 0:
            _sum_rows(row, numba.carray(bfloat16_pointer(residual), shape)[i], x[i])
        else:
            widen_row(row, x[i])
        _norm_row_bfloat16(y[i], row, weights, epsilon)
