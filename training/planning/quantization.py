"""Bytes of a linear layer in bitsandbytes' NF4: QLoRA, arXiv 2305.14314, section 3."""

from math import ceil
from typing import Final

from training.planning.shapes import Linear

BLOCK: Final = 64
"""Weights that share one scale."""
NESTED_BLOCK: Final = 256
"""Scales that share one scale, under double quantization."""
CODE_BYTES: Final = 16 * 4
"""The sixteen values of NF4."""
NESTED_CODE_BYTES: Final = 256 * 4 + 4
"""The values of an 8-bit scale, and the mean that is taken off the scales first."""


def nf4_bytes(linear: Linear) -> int:
    """The packed weights: two a byte."""
    return ceil(linear.weights / 2)


def constant_bytes(linear: Linear, double_quant: bool) -> int:
    """What it takes to read them: 0.5 bits a weight, or 8/64 + 32/(64 * 256) = 0.127 quantized twice."""
    scales = ceil(linear.weights / BLOCK)
    if not double_quant:
        return scales * 4 + CODE_BYTES
    return scales + ceil(scales / NESTED_BLOCK) * 4 + CODE_BYTES + NESTED_CODE_BYTES
