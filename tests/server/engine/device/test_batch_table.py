"""The tables that the kernels read."""

import pytest
import torch

from lora_compose.server.engine.device.batch_table import SMALL_BATCH, BatchTable, Limits

ROWS = {"a": (4, 5), "b": (9,), "c": (0, 1, 2)}


def table(max_rows: int = 256, max_requests: int = 8, max_ranks: int = 6) -> BatchTable:
    return BatchTable(Limits(max_rows, max_requests, max_ranks), "cpu")


def tiles(made: BatchTable, rows: int) -> list[list[int]]:
    found = made.tiles(rows)
    return found.fields.reshape(-1, 3)[: int(found.count)].tolist()


def test_requests_for_the_same_members_are_one_group_whatever_their_weights() -> None:
    made = table()
    wanted = [{"b": 2.0, "a": 1.0}, {}, {"a": 0.5, "b": -1.0}, {"c": 3.0}]
    made.set(wanted, [2, 3, 1, 1], ROWS.__getitem__)
    assert tiles(made, 7) == [[0, 0, 3], [1, 3, 1]]
    assert made.rows[:4].tolist() == [0, 1, 5, 6]
    assert made.compositions[:4].tolist() == [0, 0, 2, 3]
    assert made.entries[:3].tolist() == [4, 5, 9]
    assert made.entries[6:9].tolist() == [0, 1, 2]
    assert made.counts[:2].tolist() == [3, 3]
    assert made.weights[0, :3].tolist() == [1.0, 1.0, 2.0]
    assert made.weights[2, :3].tolist() == [0.5, 0.5, -1.0]


def test_a_group_is_divided_into_tiles() -> None:
    made = table()
    made.set([{"a": 1.0}], [40], ROWS.__getitem__)
    assert tiles(made, 40) == [[0, 0, 16], [0, 16, 16], [0, 32, 8]]
    assert tiles(made, SMALL_BATCH + 1) == [[0, 0, 40]]
    made.set([{"a": 1.0}, {"b": 1.0}], [65, 65], ROWS.__getitem__)
    assert tiles(made, 130) == [[0, 0, 64], [0, 64, 1], [1, 65, 64], [1, 129, 1]]


@pytest.mark.parametrize("rows", [1, 7, 8])
def test_the_most_divided_batch_fits(rows: int) -> None:
    made = BatchTable(Limits(rows, rows, 6), "cpu")
    names = [{"a": 1.0}, {"b": 1.0}, {"c": 1.0}, {"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}]
    wanted = [*names, {"b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {}][:rows]
    made.set(wanted, [1] * rows, ROWS.__getitem__)
    assert len(tiles(made, rows)) == min(rows, 7)


def test_addresses_stay_and_nothing_of_the_batch_before_is_left() -> None:
    made = table()
    addresses = [t.data_ptr() for t in (made.rows, made.entries, made.weights, made.small.count)]
    made.set([{"a": 1.0}] * 3, [9, 9, 9], ROWS.__getitem__)
    made.set([{}], [1], ROWS.__getitem__)
    assert tiles(made, 1) == []
    made.set([{"a": 1.0}], [1], ROWS.__getitem__)
    made.clear()
    assert tiles(made, 1) == [] == tiles(made, 65)
    assert addresses == [t.data_ptr() for t in (made.rows, made.entries, made.weights, made.small.count)]
    assert torch.equal(made.rows, torch.zeros_like(made.rows))


def test_a_composition_with_too_many_ranks_is_refused() -> None:
    with pytest.raises(RuntimeError, match="rank 7; at most 6 fit"):
        table().set([{"x": 1.0}], [1], lambda _: range(7))
