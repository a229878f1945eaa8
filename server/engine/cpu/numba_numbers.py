"""Float32 and bfloat16 in functions that numba compiles: pointers from addresses, and conversions.

numba has no bfloat16, so such numbers are uint16 there.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

# Sums may be reordered, so that they can be vectorized. NaN and infinity keep their meaning.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}

BITS = ir.IntType(32)


def _bits(number: int) -> Any:
    return ir.Constant(BITS, number)


@intrinsic  # type: ignore[untyped-decorator]
def float_pointer(_: Any, address: Any) -> Any:
    """Convert an address to a pointer to float32."""
    return numba.types.CPointer(numba.types.float32)(address), _to_pointer


@intrinsic  # type: ignore[untyped-decorator]
def bfloat16_pointer(_: Any, address: Any) -> Any:
    """Convert an address to a pointer to bfloat16."""
    return numba.types.CPointer(numba.types.uint16)(address), _to_pointer


def _to_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))


@intrinsic  # type: ignore[untyped-decorator]
def widen(_: Any, number: Any) -> Any:
    """A bfloat16 as float32. A float32 stays the same."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0] == numba.types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], BITS), _bits(16))
        return builder.bitcast(bits, ir.FloatType())

    return numba.types.float32(number), generate


@intrinsic  # type: ignore[untyped-decorator]
def narrow(_: Any, number: Any) -> Any:
    """A float32 as the nearest bfloat16, the even one of two. Not a number stays that."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], BITS)
        upper = builder.lshr(bits, _bits(16))
        rounded = builder.add(bits, builder.add(builder.and_(upper, _bits(1)), _bits(0x7FFF)))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        chosen = builder.select(is_nan, builder.or_(upper, _bits(0x40)), builder.lshr(rounded, _bits(16)))
        return builder.trunc(chosen, ir.IntType(16))

    return numba.types.uint16(number), generate


@numba.njit  # type: ignore[untyped-decorator]
def widen_row(to: np.ndarray, row: np.ndarray) -> None:
    """Write the numbers of a row to `to`, which is float32."""
    for i in range(len(row)):
        to[i] = widen(row[i])
