"""Rows of a batch, grouped by what they ask for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.engine.batch import group_rows

WANTED = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([1.0, 0.5, -2.0]), max_size=3)


@given(st.lists(st.tuples(WANTED, st.integers(1, 5)), max_size=10))
def test_every_row_with_an_adapter_is_in_exactly_one_group_with_its_own_weights(
    requests: list[tuple[dict[str, float], int]],
) -> None:
    counts = [count for _, count in requests]
    batch = group_rows([wanted for wanted, _ in requests], counts)
    expected = [wanted for wanted, count in requests for _ in range(count)]
    order = np.arange(sum(counts))[batch.order]
    seen: dict[int, dict[str, float]] = {}
    for group in batch.groups:
        rows = order[group.rows]
        weights = np.ones(len(group.members)) if group.weights is None else group.weights
        weights = np.broadcast_to(weights, (len(rows), len(group.members)))
        for row, own in zip(rows, weights, strict=True):
            assert row not in seen
            seen[int(row)] = dict(zip(group.members, own.tolist(), strict=True))
    assert seen == {row: wanted for row, wanted in enumerate(expected) if wanted}
    assert batch.rows == max((group.rows.stop - group.rows.start for group in batch.groups), default=0)


def test_adjacent_rows_are_a_slice_so_that_no_copy_is_made() -> None:
    assert group_rows([{}, {"a": 1.0}, {"a": 0.5}], [1, 2, 3]).order == slice(1, 6)
    assert isinstance(group_rows([{"a": 1.0}, {"b": 1.0}, {"a": 1.0}], [1, 1, 1]).order, np.ndarray)


def test_equal_weights_are_kept_once() -> None:
    (group,) = group_rows([{"a": 0.5}, {"a": 0.5}], [3, 4]).groups
    assert group.weights is not None
    assert group.weights.shape == (1,)


def test_only_decoding_repeats() -> None:
    assert group_rows([{"a": 1.0}, {}], [1, 1]).repeats
    assert not group_rows([{"a": 1.0}, {}], [1, 7]).repeats
