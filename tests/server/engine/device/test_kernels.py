"""The kernels in Triton's interpreter, against float64."""

import pytest
import torch

from lora_compose.server.engine.device.batch_table import Members
from lora_compose.server.engine.device.trial import TOLERANCE, TrialLayer, TrialShape, self_check

RANKS = (1, 16, 7, 9, 3, 33, 8, 2)


def stacks(rows: int) -> list[Members]:
    """Row i has i mod 9 members, with weights of its own."""
    return [{f"m{j}": 0.3 * j - 0.7 + 0.01 * i for j in range(i % 9)} for i in range(rows)]


@pytest.mark.parametrize("rows", [9, 70], ids=["a small batch", "a large batch"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_stacks_of_mixed_ranks_are_right(dtype: torch.dtype, rows: int) -> None:
    layer = TrialLayer(RANKS, dtype)
    x, y = layer.batch(rows)
    assert layer.error(y, x, stacks(rows)) < TOLERANCE[dtype]


@pytest.mark.parametrize("rank", [1, 2, 15, 16, 17, 64, 255, 256])
def test_each_rank_is_right(rank: int) -> None:
    layer = TrialLayer([rank], shape=TrialShape(d_in=70, widths=(40,), max_ranks=256))
    x, y = layer.batch(3)
    assert layer.error(y, x, [{"m0": 0.5}, {}, {"m0": -2.0}]) < 1e-6


@pytest.mark.parametrize("rows", [9, 70], ids=["a small batch", "a large batch"])
def test_rows_without_an_adapter_keep_their_bits(rows: int) -> None:
    layer = TrialLayer(RANKS, torch.float16)
    x, y = layer.batch(rows)
    out = layer.run(y, x, stacks(rows))
    assert torch.equal(out[::9], y[::9])
    assert not torch.equal(out[1::9], y[1::9])


@pytest.mark.parametrize("added_rows", [4, 70], ids=["a small batch", "a large batch"])
def test_rows_that_a_graph_adds_to_the_batch_keep_their_bits(added_rows: int) -> None:
    layer = TrialLayer(RANKS)
    x, y = layer.batch(2 + added_rows)
    out = layer.run(y, x, [{"m0": 1.0}, {"m3": 1.0}])
    assert torch.equal(out[2:], y[2:])
    assert layer.error(y[:2], x[:2], [{"m0": 1.0}, {"m3": 1.0}]) < 1e-6


@pytest.mark.parametrize("rows", [0, 1, 65])
def test_a_batch_without_adapters_changes_nothing(rows: int) -> None:
    layer = TrialLayer([4])
    x, y = layer.batch(rows)
    assert torch.equal(layer.run(y, x, [{}] * rows), y)


def test_a_row_gets_the_same_bits_in_any_small_batch() -> None:
    layer = TrialLayer(RANKS, torch.float16)
    x, y = layer.batch(9)
    wanted = stacks(9)
    together = layer.run(y, x, wanted)
    for row in (1, 4, 8):
        assert torch.equal(layer.run(y[row : row + 1], x[row : row + 1], [wanted[row]])[0], together[row])


def test_adapters_in_scattered_rows_of_the_pool_are_right() -> None:
    layer = TrialLayer([3, 4, 5, 6])
    for name in ("in front", "m1"):
        layer.ranks.free(name)
    scattered = layer.ranks.allocate("m1", 12, ())
    assert [*scattered] != [*range(scattered[0], scattered[0] + 12)]
    layer.pool.lora_a[:, list(scattered)] = layer.normal(2, 12, 300)
    layer.pool.lora_b[list(scattered)] = layer.normal(12, 208)
    x, y = layer.batch(4)
    assert layer.error(y, x, [{"m1": 1.0}, {"m0": 1.0, "m1": 0.5}, {"m3": 2.0}, {}]) < 1e-6


def test_the_self_check_of_a_device_passes_and_refuses_wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < self_check(torch.float16, "cpu") < TOLERANCE[torch.float16]
    monkeypatch.setitem(TOLERANCE, torch.float16, 1e-9)
    with pytest.raises(RuntimeError, match="our LoRA kernels compute wrong sums on this device"):
        self_check(torch.float16, "cpu")
