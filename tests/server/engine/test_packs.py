"""Factors laid out for the kernels, against dense float64 sums."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.engine import packs
from server.engine.packs import Factors, Pack, join, pack_layer

WIDTHS = (6, 3, 3)
D_IN = 5
RANKS = st.lists(st.integers(0, 4), min_size=3, max_size=3)


def random_factors(ranks: list[int]) -> list[Factors | None]:
    return [
        (torch.randn(rank, D_IN), torch.randn(width, rank)) if rank else None
        for rank, width in zip(ranks, WIDTHS, strict=True)
    ]


def dense(factors: list[Factors | None]) -> torch.Tensor:
    """The delta, `(Σ widths, d_in)`, in float64."""
    return torch.cat([
        pair[1].double() @ pair[0].double() if pair else torch.zeros(width, D_IN).double()
        for pair, width in zip(factors, WIDTHS, strict=True)
    ])


def applied(pack: Pack | None, x: torch.Tensor, weights: np.ndarray | None = None) -> torch.Tensor:
    """The delta's output, which both ways to it agree on."""
    y, alone = torch.zeros(len(x), sum(WIDTHS)), torch.zeros(len(x), sum(WIDTHS))
    if pack is not None:
        pack.add_delta(y, x, weights)
        pack.add_delta_alone(alone.numpy(), x.numpy(), weights)
    torch.testing.assert_close(alone, y, atol=1e-4, rtol=1e-4)
    return y.double()


@given(RANKS, st.integers(1, 20))
def test_a_pack_is_the_true_delta_of_every_slice(ranks: list[int], rows: int) -> None:
    torch.manual_seed(rows)
    factors, x = random_factors(ranks), torch.randn(rows, D_IN)
    pack = pack_layer(factors, WIDTHS)
    assert (pack is None) == (not any(ranks))
    torch.testing.assert_close(applied(pack, x), x.double() @ dense(factors).T, atol=1e-4, rtol=1e-4)


@given(st.lists(RANKS, min_size=1, max_size=4), st.integers(1, 9))
def test_a_joined_pack_weighs_each_member(stack: list[list[int]], rows: int) -> None:
    torch.manual_seed(rows)
    members = [random_factors(ranks) for ranks in stack]
    x, weights = torch.randn(rows, D_IN), torch.randn(rows, len(members))
    joined = join([pack_layer(factors, WIDTHS) for factors in members])
    expected = sum(
        (
            weights[:, i : i + 1].double() * (x.double() @ dense(factors).T)
            for i, factors in enumerate(members)
        ),
        torch.zeros(rows, sum(WIDTHS)).double(),
    )
    of_rank = None if joined is None else weights.numpy()[:, joined.members]
    torch.testing.assert_close(applied(joined, x, of_rank), expected, atol=1e-4, rtol=1e-4)


def test_ranks_that_write_the_same_outputs_lie_together() -> None:
    members = [pack_layer(random_factors([2, 1, 0]), WIDTHS), pack_layer(random_factors([3, 0, 1]), WIDTHS)]
    joined = join(members)
    assert joined is not None
    assert [(part.o0, part.o1, part.r1 - part.r0) for part in joined.slices] == [
        (0, 6, 5),
        (6, 9, 1),
        (9, 12, 1),
    ]
    assert joined.members.tolist() == [0, 0, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_block_diagonal_b_is_made_only_while_it_is_small(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BLOCK_DIAGONAL_ELEMENTS", limit)
    factors = random_factors([2, 1, 3])
    pack = pack_layer(factors, WIDTHS)
    assert pack is not None
    whole = pack.block_diagonal
    assert (whole is None) == (limit == 0)
    if whole is not None:
        torch.testing.assert_close(whole.T.double() @ pack.lora_a.double(), dense(factors))
