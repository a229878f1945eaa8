"""Plans of a layer at the sizes of real layers, below and above the limit for small shares."""

from collections.abc import Sequence

import pytest
import torch

from lora_compose.server.engine.cpu import kernel, layer_plan
from lora_compose.server.engine.cpu.batch import Members, share_rows
from lora_compose.server.engine.cpu.layer_plan import SMALL_SHARE, Kernels, LayerPlan
from lora_compose.server.engine.cpu.packed_factors import Pack, PackedPair, pack_layer

D_IN, WIDTHS = 96, (128, 64, 64)
WIDTH = sum(WIDTHS)
BF16 = torch.bfloat16
KERNELS = {
    torch.float32: Kernels(kernel.add_deltas, kernel.scale_rows),
    BF16: Kernels(kernel.add_deltas_bfloat16, kernel.scale_rows_bfloat16),
}


def made_pack(rank: int, dtype: torch.dtype = torch.float32) -> tuple[Pack, torch.Tensor]:
    """A pack, and its delta in float64."""
    factors = [
        PackedPair(lora_A=torch.randn(rank, D_IN).to(dtype), lora_B=torch.randn(width, rank).to(dtype))
        for width in WIDTHS
    ]
    pack = pack_layer(factors, WIDTHS)
    assert pack is not None
    return pack, torch.cat([pair.lora_B.double() @ pair.lora_A.double() for pair in factors])


def planned(
    wanted: Sequence[Members], counts: Sequence[int], packs: dict[str, Pack], dtype: torch.dtype
) -> LayerPlan:
    batch = share_rows(wanted, counts)
    return LayerPlan(batch, [packs.get(share.member) for share in batch.shares], dtype, KERNELS)


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("before", [0, 2], ids=["from the first row", "from the third"])
def test_a_share_is_the_same_on_either_side_of_the_limit(rank: int, before: int) -> None:
    pack, delta = made_pack(rank)
    few = SMALL_SHARE // (pack.rank * WIDTH)
    for count in (1, few, few + 1):
        plan = planned([{}, {"a": 0.5}, {}], [before, count, 1], {"a": pack}, torch.float32)
        assert bool(plan._large) == (count > few)
        x, y = torch.randn(before + count + 1, D_IN), torch.randn(before + count + 1, WIDTH)
        own, expected = slice(before, before + count), y.double()
        expected[own] += 0.5 * (x[own].double() @ delta.T)
        untouched = torch.cat([y[:before], y[-1:]])
        plan.add_deltas(y, x)
        torch.testing.assert_close(y.double(), expected, atol=1e-3, rtol=1e-4)
        assert torch.equal(torch.cat([y[:before], y[-1:]]), untouched)


@pytest.mark.parametrize("limit", [0, 20_000, 1 << 30], ids=["torch", "both", "the kernel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixed_batch_of_adapters_of_many_sizes(
    dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_plan, "SMALL_SHARE", limit)
    made = {name: made_pack(rank, dtype) for name, rank in zip("abc", (2, 16, 4), strict=True)}
    wanted: list[Members] = [{"b": 1.0}, {}, {"a": 0.5, "c": -2.0}, {"a": 1.0}, {"none here": 3.0}]
    counts = [3, 2, 1, 40, 4]
    plan = planned(wanted, counts, {name: pack for name, (pack, _) in made.items()}, dtype)
    rows = [members for members, count in zip(wanted, counts, strict=True) for _ in range(count)]
    x, before = torch.randn(len(rows), D_IN).to(dtype), torch.randn(len(rows), WIDTH).to(dtype)
    expected = before.double()
    for row, members in enumerate(rows):
        for name in members.keys() & made:
            expected[row] += members[name] * (x[row].double() @ made[name][1].T)
    tolerance = 1e-3 if dtype == torch.float32 else 2.0
    for _ in range(2):  # decoding runs one plan for many steps
        y = before.clone()
        plan.add_deltas(y, x)
        torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize("rank", [4, 16, 64, 256])
@pytest.mark.parametrize("count", [1, 3, 8, 16])
def test_bfloat16_is_summed_in_float32_and_rounded_once(rank: int, count: int) -> None:
    made = {name: made_pack(rank, torch.bfloat16) for name in "abc"}
    plan = planned([{"a": 0.5, "b": -1.25, "c": 0.3}], [count], {n: p for n, (p, _) in made.items()}, BF16)
    x, before = torch.randn(count, D_IN).to(BF16), torch.randn(count, WIDTH).to(BF16)
    weights = {"a": 0.5, "b": -1.25, "c": float(torch.tensor(0.3))}
    expected = before.double() + sum(
        weight * (x.double() @ made[name][1].T) for name, weight in weights.items()
    )
    y = before.clone()
    plan.add_deltas(y, x)
    half_a_step = 2.0**-9 * 2.0 ** (torch.frexp(expected).exponent.double())
    assert ((y.double() - expected).abs() <= half_a_step * 1.01 + 1e-3).all()


def test_bfloat16_rounds_a_tie_to_the_even_number() -> None:
    pack = pack_layer([PackedPair(lora_A=torch.ones(1, 1).to(BF16), lora_B=torch.ones(4, 1).to(BF16))], [4])
    assert pack is not None
    plan = planned([{"a": 2.0**-8}], [1], {"a": pack}, BF16)
    y = torch.tensor([[1.0, 1.0 + 2.0**-7, -1.0, float("inf")]]).to(BF16)
    plan.add_deltas(y, torch.ones(1, 1).to(BF16))
    assert y.tolist() == [[1.0, 1.0 + 2.0**-6, -1.0 + 2.0**-8, float("inf")]]


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
def test_a_row_has_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    packs = {name: made_pack(rank, dtype)[0] for name, rank in zip("abc", (2, 16, 4), strict=True)}
    x, alone = torch.randn(4, D_IN).to(dtype), torch.zeros(1, WIDTH).to(dtype)
    planned([{"b": 0.5, "a": 2.0}], [1], packs, dtype).add_deltas(alone, x[:1])
    for others in ([{"a": 1.0}], [{"c": 1.0, "b": 3.0}, {}], [{}, {"b": 1.0}, {"a": 0.1, "c": 1.0}]):
        y, inputs = torch.zeros(len(others) + 1, WIDTH).to(dtype), torch.cat([x[1 : len(others) + 1], x[:1]])
        wanted: list[Members] = [*others, {"a": 2.0, "b": 0.5}]
        planned(wanted, [1] * len(wanted), packs, dtype).add_deltas(y, inputs)
        assert torch.equal(y[-1], alone[0])


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
def test_not_a_number_stays_one_and_stays_in_its_row(dtype: torch.dtype) -> None:
    pack, _ = made_pack(4, dtype)
    plan = planned([{"a": 1.0}, {"a": 1.0}], [1, 1], {"a": pack}, dtype)
    x, y = torch.randn(2, D_IN).to(dtype), torch.zeros(2, WIDTH).to(dtype)
    x[0, 3] = float("nan")
    plan.add_deltas(y, x)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def test_a_batch_smaller_than_its_plan_is_refused_and_not_written_past() -> None:
    pack, _ = made_pack(4)
    plan = planned([{}, {"a": 1.0}], [3, 1], {"a": pack}, torch.float32)
    with pytest.raises(IndexError, match="row 3 is out of range: there are 2 rows"):
        plan.add_deltas(torch.zeros(2, WIDTH), torch.zeros(2, D_IN))


def test_an_output_that_the_kernel_cannot_address_is_refused() -> None:
    pack, _ = made_pack(4)
    plan = planned([{"a": 1.0}], [1], {"a": pack}, torch.float32)
    for y in (
        torch.zeros(1, 2 * WIDTH)[:, ::2].expand(2, -1),
        torch.zeros(WIDTH, 3).T,
        torch.zeros(2, WIDTH),
    ):
        with pytest.raises(ValueError, match="not contiguous, or has another number of rows"):
            plan.add_deltas(y, torch.zeros(1, D_IN))
