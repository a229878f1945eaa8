"""Linear algebra on low-rank matrices: a matrix is stored as two factors, in float64.

The product of the factors is not computed. A LoRA's delta, a weighted sum of deltas and a difference of sums
all have this form, so a merge and its error cost O((d_out + d_in) R^2 + R^3) at total rank R instead of
O(d_out d_in min(d_out, d_in)). The functions do not use the global RNG.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 256
"""`from_dense` is exact if the shorter side is at most this."""

NEAR_SHARE = 0.25
"""A start with at least this share of the squared norm is close to the answer."""

NEAR_STEPS, FAR_STEPS = 2, 4
"""Blocks of the Krylov space beyond the start, for a start that is close to the answer and for another."""

OVERSAMPLED = 8
"""The start has at least this many columns more than the result. Random ones are added for it."""

TINY = 1e-150
"""Avoids a division by zero for zero rows."""

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


def from_dense(matrix: Tensor, rank: int, near: Sequence[LowRank] = ()) -> LowRank:
    """A rank-`rank` approximation of a dense float32 (d_out, d_in) matrix. It is deterministic.

    If the shorter side is at most EXACT_UP_TO, it is the best approximation in Frobenius norm. Otherwise it
    is the best one in a block Krylov space (Musco, Musco: 1504.05477, algorithm 2). `near` are matrices whose
    column spaces are near the answer's, such as the members of a merge. They start the space; random columns
    from a generator of its own are added if they are few. The error is then at most 1.01 times the smallest
    possible one. This was measured on members of ranks 4 to 32 with flat and with steep spectra, trimmed or
    dropped to densities of 0.05 to 0.9; with flat spectra and a density of 0.5 it is 1 + 1e-6.
    """
    if matrix.shape[0] > matrix.shape[1]:
        flipped = from_dense(matrix.T, rank, [LowRank(B=part.A.T, A=part.B.T) for part in near])
        return LowRank(B=flipped.A.T, A=flipped.B.T)
    basis = None if matrix.shape[0] <= EXACT_UP_TO else _krylov_basis(matrix, rank, near)
    small = matrix.double() if basis is None else (basis.T @ matrix).double()
    vectors = torch.linalg.eigh(small @ small.T).eigenvectors[:, -rank:].flip(1)
    rows = vectors.T @ small
    if basis is not None:
        vectors = basis.double() @ vectors
    root = torch.linalg.vector_norm(rows, dim=1).sqrt()
    return LowRank(B=vectors * root, A=rows / root.clamp(min=TINY)[:, None])


def _krylov_basis(matrix: Tensor, rank: int, near: Sequence[LowRank]) -> Tensor:
    """An orthonormal basis of a space near the leading singular vectors, (d_out, at most d_out), float32."""
    generator = torch.Generator().manual_seed(0)
    columns = sum(part.rank for part in near)
    added = max(0, rank + OVERSAMPLED - columns)
    start = torch.randn(matrix.shape[1], added, generator=generator, dtype=matrix.dtype)
    block = torch.cat([*(part.B.to(matrix.dtype) for part in near), matrix @ start], dim=1)
    blocks = [torch.linalg.qr(block)[0]]
    image = matrix.T @ blocks[0]
    is_near = float(image.norm()) ** 2 >= NEAR_SHARE * float(matrix.norm()) ** 2
    for _ in range(NEAR_STEPS if is_near else FAR_STEPS):
        blocks.append(torch.linalg.qr(matrix @ image)[0])
        image = matrix.T @ blocks[-1]
    basis: Tensor = torch.linalg.qr(torch.cat(blocks, dim=1)[:, : matrix.shape[0]])[0]
    return basis


def _without_noise(parts: ThinSVD) -> ThinSVD:
    """Only the singular values above NOISE, and their vectors."""
    kept = int((parts.s > NOISE * parts.s[:1]).sum())
    return ThinSVD(parts.U[:, :kept], parts.s[:kept], parts.Vh[:kept])
