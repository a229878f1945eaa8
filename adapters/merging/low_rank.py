"""Linear algebra on low-rank matrices: a matrix is stored as two factors, in float64.

The product of the factors is not computed. A LoRA's delta, a weighted sum of deltas and a difference of sums
all have this form, so a merge and its error cost O((d_out + d_in) R^2 + R^3) at total rank R instead of
O(d_out d_in min(d_out, d_in)). The functions do not use the global RNG.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 1024
"""`from_dense` is exact if the shorter side is at most this. Above it, exact would take minutes per model."""

NOISE = 1e-12
"""Singular values below this share of the largest are rounding errors of float64."""


class LowRank(NamedTuple):
    """The matrix B @ A of shape (d_out, d_in): B is (d_out, r), A is (r, d_in), both float64.

    Use keywords and field names, never positions. PEFT puts A first, and a type checker cannot see a swap."""

    B: Tensor
    A: Tensor

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def dense(self) -> Tensor:
        return self.B @ self.A


class ThinSVD(NamedTuple):
    """A thin SVD, U @ diag(s) @ Vh: U is (d_out, k), s is (k,) in descending order, Vh is (k, d_in)."""

    U: Tensor
    s: Tensor
    Vh: Tensor


def concat(parts: Sequence[LowRank]) -> LowRank:
    """The exact sum of `parts`: [B1 B2 ...] @ [A1; A2; ...]. Its rank is the sum of their ranks."""
    return LowRank(
        B=torch.cat([part.B for part in parts], dim=1), A=torch.cat([part.A for part in parts], dim=0)
    )


def svd(factors: LowRank) -> ThinSVD:
    """The thin SVD of B @ A, by QR of B and of A^T and an SVD of the r x r core."""
    Q_B, R_B = torch.linalg.qr(factors.B)
    Q_A, R_A = torch.linalg.qr(factors.A.T)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    return ThinSVD(Q_B @ U, s, Vh @ Q_A.T)


def truncate(factors: LowRank, rank: int) -> LowRank:
    """The best approximation of at most `rank` in Frobenius norm (Eckart-Young).

    Each factor has the square roots of the singular values."""
    U, s, Vh = svd(factors)
    root = s[:rank].sqrt()
    return LowRank(B=U[:, :rank] * root, A=root[:, None] * Vh[:rank])


def norm(factors: LowRank) -> float:
    """Frobenius norm of B @ A.

    QR is used and not Gram matrices, because a difference of nearly equal matrices then keeps its digits."""
    R_B = torch.linalg.qr(factors.B, mode="r")[1]
    R_A = torch.linalg.qr(factors.A.T, mode="r")[1]
    return float(torch.linalg.matrix_norm(R_B @ R_A.T))


def inner(left: LowRank, right: LowRank) -> float:
    """Frobenius inner product: tr((B1 A1)^T B2 A2) = sum of (B1^T B2) * (A1 A2^T)."""
    return float(((left.B.T @ right.B) * (left.A @ right.A.T)).sum())


def distance(left: LowRank, right: LowRank) -> float:
    """Frobenius norm of the difference."""
    return norm(concat([left, LowRank(B=-right.B, A=right.A)]))


def overlap(left: ThinSVD, right: ThinSVD) -> float:
    """Overlap of the row and column spaces of two matrices: 0 (none) to 1 (one contains the other).

    It is the mean of |Q1^T Q2|_F^2 / min(r1, r2) over the column (output) and the row (input) spaces, where
    Q1 and Q2 are orthonormal bases. This is the subspace similarity of the LoRA paper, section 7.2
    (2106.09685). The overlap with a zero matrix is 0.
    """
    left, right = _without_noise(left), _without_noise(right)
    smaller = min(len(left.s), len(right.s))
    if smaller == 0:
        return 0.0
    outputs = (left.U.T @ right.U).square().sum()
    inputs = (left.Vh @ right.Vh.T).square().sum()
    return float(outputs + inputs) / (2 * smaller)


def from_dense(matrix: Tensor, rank: int) -> LowRank:
    """A rank-`rank` approximation of a dense (d_out, d_in) matrix. It is deterministic.

    If the shorter side is at most EXACT_UP_TO, it is the best approximation in Frobenius norm. Otherwise
    randomized subspace iteration computes it (Halko, Martinsson, Tropp: 0909.4061, algorithm 4.4), with a
    generator of its own.
    """
    if matrix.shape[0] > matrix.shape[1]:
        flipped = from_dense(matrix.T, rank)
        return LowRank(B=flipped.A.T, A=flipped.B.T)
    if matrix.shape[0] <= EXACT_UP_TO:
        wide = matrix.double()
        basis = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:]
        return truncate(LowRank(B=basis, A=basis.T @ wide), rank)
    basis = _leading_subspace(matrix, min(rank + max(16, rank), matrix.shape[0]))
    return truncate(LowRank(B=basis.double(), A=(basis.T @ matrix).double()), rank)


def _leading_subspace(matrix: Tensor, size: int, iterations: int = 6) -> Tensor:
    """An approximate orthonormal basis, (d_out, size), of the leading left singular vectors."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], size, generator=generator, dtype=matrix.dtype)
    basis: Tensor = torch.linalg.qr(matrix @ start)[0]
    for _ in range(iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    return basis


def _without_noise(parts: ThinSVD) -> ThinSVD:
    """Only the singular values above NOISE, and their vectors."""
    kept = int((parts.s > NOISE * parts.s[:1]).sum())
    return ThinSVD(parts.U[:, :kept], parts.s[:kept], parts.Vh[:kept])
