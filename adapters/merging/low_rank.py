"""Linear algebra on matrices held as a product of two thin factors, in float64 and never multiplied out.

A LoRA's delta, a weighted sum of deltas and their differences all have this form, so a merge and its error
cost O((d_out + d_in) R^2 + R^3) at total rank R instead of O(d_out d_in min(d_out, d_in)). No global RNG.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 1024
"""`of_dense` is exact when the shorter side is at most this; beyond, that would take minutes a model."""

NOISE = 1e-12
"""Singular values below this share of the largest are rounding of float64, not directions."""


class LowRank(NamedTuple):
    """The matrix B @ A of shape (d_out, d_in): B is (d_out, r), A is (r, d_in), both float64.

    Make it with keywords and read it by name: elsewhere A comes first, and a swap has the same type."""

    B: Tensor
    A: Tensor

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def dense(self) -> Tensor:
        return self.B @ self.A


class Singular(NamedTuple):
    """A thin SVD, U @ diag(s) @ Vh: U (d_out, k), s (k,) falling, Vh (k, d_in)."""

    U: Tensor
    s: Tensor
    Vh: Tensor


def concat(parts: Sequence[LowRank]) -> LowRank:
    """The sum of the parts, exactly: [B1 B2 ...] @ [A1; A2; ...], whose rank is the sum of ranks."""
    return LowRank(
        B=torch.cat([part.B for part in parts], dim=1), A=torch.cat([part.A for part in parts], dim=0)
    )


def svd(factors: LowRank) -> Singular:
    """Singular values and vectors of B @ A, by QR of B and of A^T and an SVD of the r x r core."""
    Q_B, R_B = torch.linalg.qr(factors.B)
    Q_A, R_A = torch.linalg.qr(factors.A.T)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    return Singular(Q_B @ U, s, Vh @ Q_A.T)


def truncate(factors: LowRank, rank: int) -> LowRank:
    """The best approximation of at most `rank` in Frobenius norm (Eckart-Young), B and A of equal weight."""
    U, s, Vh = svd(factors)
    root = s[:rank].sqrt()
    return LowRank(B=U[:, :rank] * root, A=root[:, None] * Vh[:rank])


def norm(factors: LowRank) -> float:
    """Frobenius norm of B @ A. By QR, not by Gram matrices: a difference of near-equals keeps its digits."""
    R_B = torch.linalg.qr(factors.B, mode="r")[1]
    R_A = torch.linalg.qr(factors.A.T, mode="r")[1]
    return float(torch.linalg.matrix_norm(R_B @ R_A.T))


def inner(left: LowRank, right: LowRank) -> float:
    """Frobenius inner product: tr((B1 A1)^T B2 A2) = sum of (B1^T B2) * (A1 A2^T)."""
    return float(((left.B.T @ right.B) * (left.A @ right.A.T)).sum())


def distance(left: LowRank, right: LowRank) -> float:
    """Frobenius norm of the difference."""
    return norm(concat([left, LowRank(B=-right.B, A=right.A)]))


def overlap(left: Singular, right: Singular) -> float:
    """How much two matrices share of the inputs they read and the outputs they write, 0 (none) to 1 (nested).

    The mean over both sides of |Q1^T Q2|_F^2 / min(r1, r2), Q being orthonormal bases of the column
    (output) and of the row (input) spaces: the subspace similarity of the LoRA paper, section 7.2
    (2106.09685). A zero matrix shares nothing.
    """
    one, two = _spanning(left), _spanning(right)
    smaller = min(len(one.s), len(two.s))
    if smaller == 0:
        return 0.0
    outputs = (one.U.T @ two.U).square().sum()
    inputs = (one.Vh @ two.Vh.T).square().sum()
    return float(outputs + inputs) / (2 * smaller)


def of_dense(matrix: Tensor, rank: int) -> LowRank:
    """A rank-`rank` approximation of a dense (d_out, d_in) matrix, the same each time.

    Exact (best in Frobenius norm) up to EXACT_UP_TO on the shorter side. Above it, randomized subspace
    iteration (Halko, Martinsson, Tropp: 0909.4061, algorithm 4.4) with a generator of its own.
    """
    if matrix.shape[0] > matrix.shape[1]:
        flipped = of_dense(matrix.T, rank)
        return LowRank(B=flipped.A.T, A=flipped.B.T)
    if matrix.shape[0] <= EXACT_UP_TO:
        wide = matrix.double()
        basis = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:]
        return truncate(LowRank(B=basis, A=basis.T @ wide), rank)
    basis = _leading_subspace(matrix, min(rank + max(16, rank), matrix.shape[0]))
    return truncate(LowRank(B=basis.double(), A=(basis.T @ matrix).double()), rank)


def _leading_subspace(matrix: Tensor, size: int, iterations: int = 6) -> Tensor:
    """An orthonormal basis, (d_out, size), of nearly the leading left singular directions."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], size, generator=generator, dtype=matrix.dtype)
    basis: Tensor = torch.linalg.qr(matrix @ start)[0]
    for _ in range(iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    return basis


def _spanning(parts: Singular) -> Singular:
    """Only the directions the matrix really has."""
    kept = int((parts.s > NOISE * parts.s[:1]).sum())
    return Singular(parts.U[:, :kept], parts.s[:kept], parts.Vh[:kept])
