"""Linear algebra on low-rank factors, compared with dense float64 matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compose.adapters.merging import low_rank
from lora_compose.adapters.merging.low_rank import LowRank
from lora_compose.adapters.merging.methods import METHODS


def factors(seed: int, d_out: int, rank: int, d_in: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(d_out, rank, generator=generator, dtype=torch.float64)
    return LowRank(B=B, A=torch.randn(rank, d_in, generator=generator, dtype=torch.float64))


seeds = st.integers(0, 2**31)
sizes = st.integers(1, 9)


@settings(deadline=None)
@given(seeds, sizes, sizes, sizes, sizes)
def test_concatenation_is_the_sum(seed: int, d_out: int, d_in: int, r1: int, r2: int) -> None:
    left, right = factors(seed, d_out, r1, d_in), factors(seed + 1, d_out, r2, d_in)
    total = low_rank.concat([left, right])
    assert total.rank == r1 + r2
    torch.testing.assert_close(total.B @ total.A, left.B @ left.A + right.B @ right.A)


@settings(deadline=None)
@given(seeds, sizes, sizes, sizes)
def test_norm_and_inner_product_are_those_of_the_dense_matrices(
    seed: int, d_out: int, rank: int, d_in: int
) -> None:
    left, right = factors(seed, d_out, rank, d_in), factors(seed + 1, d_out, 2, d_in)
    dense_left, dense_right = (left.B @ left.A).numpy(), (right.B @ right.A).numpy()
    assert low_rank.norm(left) == pytest.approx(np.linalg.norm(dense_left))
    assert low_rank.inner(left, right) == pytest.approx(np.sum(dense_left * dense_right), abs=1e-9)
    assert low_rank.distance(left, right) == pytest.approx(np.linalg.norm(dense_left - dense_right))


@settings(deadline=None)
@given(seeds, sizes, sizes, sizes, sizes)
def test_truncation_errs_by_exactly_the_dropped_singular_values(
    seed: int, d_out: int, rank: int, d_in: int, kept: int
) -> None:
    whole = factors(seed, d_out, rank, d_in)
    dense = (whole.B @ whole.A).numpy()
    short = low_rank.truncate(whole, kept)
    assert short.rank == min(kept, d_out, d_in, rank)
    dropped = np.linalg.svd(dense, compute_uv=False)[kept:]
    error = np.linalg.norm(dense - (short.B @ short.A).numpy())
    assert error == pytest.approx(np.linalg.norm(dropped), abs=1e-9)


def test_truncation_gives_both_factors_the_same_weight() -> None:
    short = low_rank.truncate(factors(0, 8, 4, 6), 3)
    torch.testing.assert_close(short.B.T @ short.B, short.A @ short.A.T)


def test_the_distance_of_near_equals_keeps_its_digits() -> None:
    left = factors(0, 30, 4, 20)
    nudge = torch.full((30, 1), 1e-11, dtype=torch.float64)
    near = low_rank.concat([left, LowRank(B=nudge, A=torch.ones(1, 20, dtype=torch.float64))])
    assert low_rank.distance(near, left) == pytest.approx(1e-11 * np.sqrt(600), rel=1e-3)


def test_an_empty_product_has_norm_zero() -> None:
    assert low_rank.norm(factors(0, 5, 0, 4)) == 0.0
    assert low_rank.distance(factors(0, 5, 0, 4), factors(1, 5, 2, 4)) == low_rank.norm(factors(1, 5, 2, 4))


@settings(deadline=None)
@given(seeds, sizes, sizes, sizes)
def test_the_best_low_rank_factors_of_a_small_dense_matrix(
    seed: int, d_out: int, d_in: int, rank: int
) -> None:
    dense = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    short = low_rank.from_dense(dense, rank)
    dropped = np.linalg.svd(dense.double().numpy(), compute_uv=False)[rank:]
    error = np.linalg.norm(dense.double().numpy() - (short.B @ short.A).numpy())
    assert error == pytest.approx(np.linalg.norm(dropped), abs=1e-6)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
def test_a_large_dense_matrix_is_truncated_within_a_thousandth_of_the_best(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "EXACT_UP_TO", 64)
    whole = low_rank.concat([factors(seed, shape[0], 8, shape[1]) for seed in (0, 1)])
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.3
    dense = torch.where(kept, whole.B @ whole.A, 0.0).float()
    short = low_rank.from_dense(dense, 8)
    best = np.linalg.norm(np.linalg.svd(dense.double().numpy(), compute_uv=False)[8:])
    error = np.linalg.norm(dense.double().numpy() - (short.B @ short.A).numpy())
    assert best <= error * (1 + 1e-9) <= 1.001 * best


@pytest.mark.parametrize("shape", [(576, 300), (300, 576)])
@pytest.mark.parametrize(
    ("method", "density", "decay", "tolerance"),
    [
        ("ties", 0.5, 0.0, 1e-5),
        ("ties", 0.2, 2.0, 0.01),
        ("dare_linear", 0.5, 0.0, 1e-4),
        ("dare_ties", 0.05, 1.0, 0.01),
        ("dare_linear", 0.2, 3.0, 0.01),
    ],
)
def test_a_merge_of_a_large_layer_is_nearly_the_best_of_its_rank(
    shape: tuple[int, int], method: str, density: float, decay: float, tolerance: float
) -> None:
    row, generator = METHODS[method], torch.Generator().manual_seed(5)
    assert row.sparsify is not None
    assert row.consensus is not None
    members = [factors(seed, shape[0], rank, shape[1]) for seed, rank in ((0, 8), (1, 16))]
    steep = [
        LowRank(B=member.B * torch.arange(1.0, member.rank + 1).pow(-decay), A=member.A) for member in members
    ]
    deltas = [row.sparsify(member.dense().float(), density, generator) for member in steep]
    dense = row.consensus(deltas, [1.0, 0.7], "total")
    best = np.linalg.norm(np.linalg.svd(dense.double().numpy(), compute_uv=False)[16:])
    short = low_rank.from_dense(dense, 16, steep)
    error = np.linalg.norm(dense.double().numpy() - short.dense().numpy())
    assert short.rank == 16
    assert best <= error * (1 + 1e-9) <= best * (1 + tolerance)


def test_truncating_a_dense_matrix_neither_reads_nor_moves_the_global_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(low_rank, "EXACT_UP_TO", 4)
    dense = factors(0, 40, 9, 30).dense().float()
    before = torch.get_rng_state()
    left = low_rank.from_dense(dense, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    right = low_rank.from_dense(dense, 3)
    torch.set_rng_state(before)
    assert torch.equal(left.B, right.B)
    assert torch.equal(left.A, right.A)


def test_overlap_is_one_with_itself_and_zero_between_orthogonal_matrices() -> None:
    eye = torch.eye(8, dtype=torch.float64)
    first, second = LowRank(B=eye[:, :3], A=2 * eye[:3]), LowRank(B=eye[:, 3:5], A=eye[3:5])
    mixed = LowRank(B=eye[:, :3], A=eye[3:6])
    assert low_rank.overlap(low_rank.svd(first), low_rank.svd(first)) == pytest.approx(1.0)
    assert low_rank.overlap(low_rank.svd(first), low_rank.svd(second)) == 0.0
    assert low_rank.overlap(low_rank.svd(first), low_rank.svd(mixed)) == pytest.approx(0.5)


def test_a_zero_matrix_overlaps_with_nothing() -> None:
    left = factors(0, 6, 2, 5)
    zero = LowRank(B=torch.zeros_like(left.B), A=left.A)
    assert low_rank.overlap(low_rank.svd(left), low_rank.svd(zero)) == 0.0
