"""Packed factors, compared with dense float64 sums."""

import ast
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.server.engine.cpu.packed_factors import PackedPair, pack_layer

WIDTHS = (6, 3, 3)
D_IN = 5
RANKS = st.lists(st.integers(0, 4), min_size=3, max_size=3)


def random_factors(ranks: list[int]) -> list[PackedPair | None]:
    return [
        PackedPair(lora_A=torch.randn(rank, D_IN), lora_B=torch.randn(width, rank)) if rank else None
        for rank, width in zip(ranks, WIDTHS, strict=True)
    ]


def dense(factors: list[PackedPair | None]) -> torch.Tensor:
    """The delta, `(Σ widths, d_in)`, in float64."""
    return torch.cat([
        pair.lora_B.double() @ pair.lora_A.double() if pair else torch.zeros(width, D_IN).double()
        for pair, width in zip(factors, WIDTHS, strict=True)
    ])


@given(RANKS, st.integers(1, 20))
def test_a_pack_is_the_true_delta_of_every_slice(ranks: list[int], rows: int) -> None:
    torch.manual_seed(rows)
    factors, x = random_factors(ranks), torch.randn(rows, D_IN)
    pack = pack_layer(factors, WIDTHS)
    assert (pack is None) == (not any(ranks))
    y, weights = torch.zeros(rows, sum(WIDTHS)), torch.randn(rows, 1)
    if pack is not None:
        pack.add_delta(y, x, weights)
    expected = weights.double() * (x.double() @ dense(factors).T)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)


def test_addresses_are_those_of_the_factors() -> None:
    pack = pack_layer(random_factors([2, 0, 3]), WIDTHS)
    assert pack is not None
    first, second = pack.addresses  # their ranks are padded to four
    assert first == (pack.lora_a.data_ptr(), pack.slices[0].lora_b_t.data_ptr(), 4, 0, 6)
    assert second == (pack.lora_a[4:].data_ptr(), pack.slices[1].lora_b_t.data_ptr(), 4, 9, 3)


def test_two_factors_are_never_told_apart_by_their_position() -> None:
    root = Path(__file__).resolve().parents[4]
    for path in (path for room in ("adapters", "server") for path in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("LowRank", "PackedPair"):
                assert not node.args, f"{path}:{node.lineno}"
