"""DoRA and biases in one batch: every row is compared with float64 arithmetic on the dense weights."""

import pytest
import torch

from lora_compose.server.engine.cpu.batch import Members, Need, Work
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.packed_factors import PackedPair, pack_layer
from lora_compose.server.engine.cpu.plans import Member
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper
from lora_compose.server.engine.cpu.row_terms import RowTerms

WIDTHS, D_IN = (6, 3, 3), 5
OUT = sum(WIDTHS)
LAYER = tuple(torch.zeros(1) for _ in WIDTHS)
DRAW = torch.Generator().manual_seed(2)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=DRAW)


W, B = draw(OUT, D_IN), draw(OUT)
CHANGE = {"dora": 0.3 * draw(OUT), "other": 0.3 * draw(OUT)}
BIAS = {"bias": draw(OUT)}
FACTORS = {name: (draw(2, D_IN), draw(OUT, 2)) for name in ("dora", "other", "bias", "plain")}


def member(name: str, dtype: torch.dtype) -> Member:
    lora_a, lora_b = FACTORS[name]
    parts = torch.split_with_sizes(lora_b, WIDTHS)
    change, bias = CHANGE.get(name), BIAS.get(name)
    terms = None
    if change is not None or bias is not None:
        zero = torch.zeros(OUT)
        terms = RowTerms(zero if change is None else change, zero if bias is None else bias, B)
    pack = pack_layer(
        [PackedPair(lora_A=lora_a.to(dtype), lora_B=part.to(dtype)) for part in parts], WIDTHS, terms
    )
    assert pack is not None
    return Member({id(LAYER): pack})


MEMBERS = {
    dtype: {name: member(name, dtype) for name in FACTORS} for dtype in (torch.float32, torch.bfloat16)
}


def only(members: Members, *kinds: str) -> Members:
    return {name: weight for name, weight in members.items() if name in kinds}


def need(wanted: Members, fused: Members) -> Need:
    """The need of a request whose DoRA differs from the fused one."""
    before = {name: -weight for name, weight in fused.items()}
    scaled_by = only(wanted, "dora", "other", "bias")
    return Need(wanted, before, scaled_by, only(fused, "dora", "other"))


def exact(x: torch.Tensor, members: Members, *, with_biases: bool) -> torch.Tensor:
    """`W' x + b'` in float64, with the weights of `members`."""
    weight, bias = W.double(), B.double()
    for name, w in members.items():
        lora_a, lora_b = FACTORS[name]
        weight = weight + w * lora_b.double() @ lora_a.double()
        if name in CHANGE:
            weight = weight + w * CHANGE[name].double()[:, None] * W.double()
        if with_biases and name in BIAS:
            bias = bias + w * BIAS[name].double()
    return x.double() @ weight.T + bias


REQUESTS: list[Members] = [
    {"dora": 1.0},
    {"dora": 0.5},
    {},
    {"bias": -2.0},
    {"dora": 1.0, "other": -0.7},
    {"plain": 1.0},
    {"dora": 0.4, "plain": 1.0, "bias": 2.0},
    {"dora": 1.0},
]


@pytest.mark.parametrize("fused", [{}, {"dora": 1.0}, {"plain": 0.5}, {"other": 0.8, "plain": 1.0}], ids=str)
@pytest.mark.parametrize("counts", [[1] * 8, [3, 1, 2, 1, 4, 1, 2, 2]], ids=["decoding", "reading"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_row_gets_its_own_scales_biases_and_factors(
    fused: Members, counts: list[int], dtype: torch.dtype
) -> None:
    x = draw(sum(counts), D_IN)
    y = exact(x, fused, with_biases=False).to(dtype)
    got = run(Work.of([need(wanted, fused) for wanted in REQUESTS], counts), y.clone(), x.to(dtype))
    rows = [wanted for wanted, count in zip(REQUESTS, counts, strict=True) for _ in range(count)]
    for row, wanted in enumerate(rows):
        tolerance = 2e-5 if dtype == torch.float32 else 0.2
        expected = exact(x[row], wanted, with_biases=True)
        torch.testing.assert_close(got[row].double(), expected, atol=tolerance, rtol=tolerance)
        if not wanted and not fused:
            assert torch.equal(got[row], y[row])


def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    x = draw(8, D_IN)
    y = exact(x, {}, with_biases=False).float()
    together = run(Work.of([need(wanted, {}) for wanted in REQUESTS], [1] * 8), y.clone(), x)
    for row, wanted in enumerate(REQUESTS):
        alone = run(Work.of([need(wanted, {})], [1]), y[row : row + 1].clone(), x[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_a_batch_that_is_too_small_is_refused() -> None:
    work = Work.of([Need(scaled_by={"bias": 1.0})], [3])
    with pytest.raises(IndexError):
        run(work, torch.zeros(2, OUT), torch.zeros(2, D_IN))


def run(work: Work, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    wrapper = GroupedPunicaWrapper.__new__(GroupedPunicaWrapper)
    wrapper._set_up()
    wrapper.begin_batch(work, MEMBERS[x.dtype].__getitem__, Meter())
    wrapper.add_lora_linear(y, x, LAYER, LAYER, 1.0, WIDTHS)
    return y
