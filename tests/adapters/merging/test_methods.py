"""The table of methods agrees with the plain-data names, and dense steps do what their papers describe."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft.utils import merge_utils

from lora_compose.adapters.composition.composition import (
    ELECTS_SIGN,
    METHOD_NAMES,
    NEEDS_DENSITY,
    SEEDED,
    TAKES_RANK,
    MajoritySignMethod,
)
from lora_compose.adapters.merging.methods import (
    METHODS,
    CombinationMethod,
    disjoint_mean,
    drop_and_rescale,
    trim,
    weighted_sum,
)

Matrix = NDArray[np.float64]


def reference_ties(
    deltas: Sequence[Matrix], weights: Sequence[float], density: float, majority: str
) -> Matrix:
    """TIES entry by entry: trim, elect a sign without weights, average the weighted entries with it."""
    trimmed = []
    for delta in deltas:
        order = np.argsort(-np.abs(delta), axis=None)[: int(density * delta.size)]
        kept = np.zeros(delta.size)
        kept[order] = delta.flat[order]
        trimmed.append(kept)
    result = np.zeros(deltas[0].size)
    for i in range(result.size):
        entries = [kept[i] for kept in trimmed]
        votes = sum(entries if majority == "total" else [np.sign(e) for e in entries])
        positive = votes >= 0
        agreeing = [w * e for w, e in zip(weights, entries, strict=True) if (e > 0 if positive else e < 0)]
        result[i] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return result.reshape(deltas[0].shape)


def tensors(deltas: Sequence[Matrix]) -> list[torch.Tensor]:
    return [torch.from_numpy(delta).float() for delta in deltas]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def names(attribute: str) -> set[str]:
    return {name for name, row in METHODS.items() if getattr(row, attribute)}


def test_the_rows_agree_with_the_names_that_the_grammar_reads() -> None:
    assert tuple(METHODS) == METHOD_NAMES
    assert names("needs_density") == NEEDS_DENSITY
    assert names("seeded") == SEEDED
    assert names("elects_sign") == ELECTS_SIGN
    assert names("takes_rank") == TAKES_RANK


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_a_row_is_factored_or_fully_elementwise(row: CombinationMethod) -> None:
    assert (row.sparsify is None) == (row.consensus is None)
    assert not (row.exact and row.elementwise)


@settings(deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.floats(-3, 3), min_size=1, max_size=4),
    st.floats(0.01, 1.0),
    st.sampled_from(["total", "frequency"]),
)
def test_trim_and_disjoint_mean_are_ties(
    seed: int, weights: list[float], density: float, majority: MajoritySignMethod
) -> None:
    draw = np.random.default_rng(seed)
    deltas = [draw.standard_normal((5, 7)).astype(np.float32).astype(np.float64) for _ in weights]
    trimmed = [trim(delta, density, generator()) for delta in tensors(deltas)]
    expected = reference_ties(deltas, weights, density, majority)
    np.testing.assert_allclose(disjoint_mean(trimmed, weights, majority).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("majority", ["total", "frequency"])
def test_ties_is_the_variant_of_peft(majority: MajoritySignMethod) -> None:
    draw = np.random.default_rng(0)
    deltas = [draw.standard_normal((6, 8)) for _ in range(3)]
    weights = [0.7, -1.5, 2.0]
    theirs = merge_utils.ties(tensors(deltas), torch.tensor(weights), 0.4, majority)
    ours = disjoint_mean([trim(delta, 0.4, generator()) for delta in tensors(deltas)], weights, majority)
    torch.testing.assert_close(ours, theirs)


def test_the_sign_is_elected_without_weights_and_zeros_do_not_count() -> None:
    left, right = torch.tensor([3.0, 0.0, 1.0]), torch.tensor([-1.0, -4.0, 1.0])
    result = disjoint_mean([left, right], [0.1, 10.0], "total")
    torch.testing.assert_close(result, torch.tensor([0.3, -40.0, 5.05]))


def test_frequency_counts_heads_where_total_weighs_them() -> None:
    deltas = [torch.tensor([5.0]), torch.tensor([-1.0]), torch.tensor([-2.0])]
    assert disjoint_mean(deltas, [1.0] * 3, "total").item() == 5.0
    assert disjoint_mean(deltas, [1.0] * 3, "frequency").item() == -1.5


def test_trim_keeps_all_that_tie_with_the_last_kept() -> None:
    delta = torch.tensor([[4.0, -2.0, 2.0, 1.0, 0.5]])
    assert trim(delta, 0.4, generator()).tolist() == [[4.0, -2.0, 2.0, 0.0, 0.0]]


def test_trim_below_one_entry_keeps_none() -> None:
    assert not trim(torch.ones(3, 3), 0.1, generator()).any()


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_a_share_of_density_and_rescales_it(density: float) -> None:
    kept = drop_and_rescale(torch.ones(400, 500), density, generator())
    # six standard deviations of a binomial share
    assert (kept != 0).double().mean().item() == pytest.approx(density, abs=6 * 0.5 / np.sqrt(200_000))
    assert sorted(set(kept.flatten().tolist())) == pytest.approx([0.0, 1 / density])


def test_dare_keeps_the_expectation() -> None:
    delta = torch.randn(20, 20, generator=generator(1))
    drawn = [drop_and_rescale(delta.clone(), 0.5, generator(seed)) for seed in range(2000)]
    # each entry's mean has a standard deviation of |entry| / sqrt(2000)
    deviations = (torch.stack(drawn).double().mean(dim=0) - delta) / (delta.abs() / np.sqrt(2000))
    assert deviations.abs().max().item() < 6
    assert abs(deviations.mean().item()) < 6 / 20


def test_dare_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    drop_and_rescale(torch.ones(9, 9), 0.5, generator())
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(-3, 3), min_size=1, max_size=4))
def test_weighted_sum_is_the_weighted_sum(seed: int, weights: list[float]) -> None:
    draw = np.random.default_rng(seed)
    deltas = [draw.standard_normal((3, 4)) for _ in weights]
    expected = np.einsum("i,ijk->jk", np.array(weights), np.stack(deltas))
    np.testing.assert_allclose(weighted_sum(tensors(deltas), weights, "total").numpy(), expected, atol=1e-5)
