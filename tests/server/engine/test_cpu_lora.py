"""The CPU kernels against a float64 sum that no code of ours computed."""

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cpu_lora import BLOCK_DIAGONAL_ROWS, Pack, group_rows, pack_slot

WIDTHS = (6, 3, 3)
D_IN, MAX_RANK, SLOTS = 5, 8, 3


def layer_with(factors: list[tuple[torch.Tensor, torch.Tensor] | None], slot: int) -> SimpleNamespace:
    """vLLM's zero-padded buffers of a packed layer, one slot filled."""
    stacked_a = [torch.zeros(SLOTS, 1, MAX_RANK, D_IN) for _ in WIDTHS]
    stacked_b = [torch.zeros(SLOTS, 1, width, MAX_RANK) for width in WIDTHS]
    for a, b, pair in zip(stacked_a, stacked_b, factors, strict=True):
        if pair is not None:
            a[slot, 0, : pair[0].shape[0]] = pair[0]
            b[slot, 0, :, : pair[1].shape[1]] = pair[1]
    return SimpleNamespace(lora_a_stacked=tuple(stacked_a), lora_b_stacked=tuple(stacked_b), n_slices=3)


def random_factors(ranks: list[int]) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
    return [
        (torch.randn(rank, D_IN), torch.randn(width, rank)) if rank else None
        for rank, width in zip(ranks, WIDTHS, strict=True)
    ]


@given(st.lists(st.integers(0, MAX_RANK), min_size=3, max_size=3), st.integers(1, 3 * BLOCK_DIAGONAL_ROWS))
def test_a_pack_adds_the_true_delta_of_every_slice(ranks: list[int], rows: int) -> None:
    torch.manual_seed(rows)
    factors = random_factors(ranks)
    x, y = torch.randn(rows, D_IN), torch.randn(rows, sum(WIDTHS))
    deltas = [
        x.double() @ pair[0].double().T @ pair[1].double().T if pair else torch.zeros(rows, width).double()
        for pair, width in zip(factors, WIDTHS, strict=True)
    ]
    expected = y.double() + torch.cat(deltas, dim=1)
    pack = pack_slot(layer_with(factors, slot=1), 1, ranks)
    if pack is not None:
        pack.add_delta(y, x)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_slot_without_factors_has_no_pack() -> None:
    assert pack_slot(layer_with([None, None, None], slot=0), 0, [0, 0, 0]) is None


@given(st.lists(st.integers(-1, 4), max_size=40))
def test_every_row_with_an_adapter_is_in_exactly_its_own_group(slots: list[int]) -> None:
    answered = np.full(len(slots), -1)
    for group in group_rows(np.asarray(slots, dtype=np.int64)):
        rows = np.arange(len(slots))[slice(None) if group.rows is None else group.rows]
        assert (answered[rows] == -1).all()
        answered[rows] = group.slot
    assert answered.tolist() == slots


def test_adjacent_rows_are_a_slice_so_that_no_copy_is_made() -> None:
    groups = group_rows(np.asarray([2, 2, -1, 0, -1, 0]))
    assert [type(group.rows) for group in groups] == [torch.Tensor, slice]


def test_a_pack_writes_through_a_strided_view() -> None:
    pack = Pack(torch.ones(1, 2), torch.ones(1, 3), ((0, 1, 0, 3),))
    whole = torch.zeros(4, 6)
    pack.add_delta(whole[1:3, :3], torch.ones(2, 2))
    assert whole.sum() == 12
