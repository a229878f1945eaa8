"""Plans of a layer at the sizes real layers have, on either side of every limit."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from server.engine.layer_plan import (
    SMALL_PRODUCT,
    LargePlan,
    OncePlan,
    OnePlan,
    Product,
    SmallPlan,
    plan_layer,
)
from server.engine.packs import BLOCK_DIAGONAL_ELEMENTS, Pack, pack_layer

D_IN, WIDTHS = 96, (128, 64, 64)
WIDTH = sum(WIDTHS)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def made_pack(rank: int, dtype: torch.dtype = torch.float32) -> tuple[Pack, torch.Tensor]:
    """A pack, and its delta in float64."""
    factors = [(torch.randn(rank, D_IN).to(dtype), torch.randn(width, rank).to(dtype)) for width in WIDTHS]
    pack = pack_layer(factors, WIDTHS)
    assert pack is not None
    return pack, torch.cat([b.double() @ a.double() for a, b in factors])


def rows_for(multiplications: int, rank: int) -> int:
    return multiplications // (3 * rank * WIDTH)


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("whole", [True, False], ids=["the whole batch", "some of it"])
def test_a_product_is_the_same_on_either_side_of_the_limit(
    threads: int, rank: int, whole: bool, repeats: bool
) -> None:
    pack, delta = made_pack(rank)
    assert (pack.block_diagonal is None) == (3 * rank * WIDTH > BLOCK_DIAGONAL_ELEMENTS)
    for count in (1, rows_for(SMALL_PRODUCT, rank), rows_for(SMALL_PRODUCT, rank) + 1):
        x, before = torch.randn(count + 3, D_IN), torch.randn(count + 3, WIDTH)
        rows = slice(0, count) if whole else slice(2, count + 2)
        if whole:
            x, before = x[:count], before[:count]
        weights = np.random.default_rng(count).standard_normal((count, pack.rank)).astype(np.float32)
        weights[:] = weights[:, :1]  # one weight a row: the pack has one member
        y = before.clone()
        product = Product(slice(0, count), pack, weights)
        plan_layer(rows, [product], y, repeats=repeats).add_deltas(y, x)
        expected = before.double()
        scaled = torch.from_numpy(weights[:, :1]).double() * (x[rows].double() @ delta.T)
        expected[rows] += scaled
        torch.testing.assert_close(y.double(), expected, atol=1e-3, rtol=1e-4)
        others = torch.ones(len(y), dtype=torch.bool)
        others[rows] = False
        assert torch.equal(y[others], before[others])


def test_which_plan_it_is_goes_by_size_and_by_threads() -> None:
    pack, _ = made_pack(8)
    few, many = rows_for(SMALL_PRODUCT, 8), rows_for(SMALL_PRODUCT, 8) + 1

    def plan(count: int, rows: int, dtype: torch.dtype = torch.float32, *, repeats: bool = True) -> object:
        every, y = slice(0, count), torch.empty(rows, WIDTH, dtype=dtype)
        return plan_layer(every, [Product(every, pack, None)], y, repeats=repeats)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert isinstance(plan(few, few), OnePlan)
        assert isinstance(plan(few, few + 1), SmallPlan)
        for repeats in (True, False):
            assert isinstance(plan(many, many, repeats=repeats), LargePlan)
        assert isinstance(plan(few, few, repeats=False), OncePlan)
        torch.set_num_threads(1)
        assert isinstance(plan(many, many), OnePlan)
        assert isinstance(plan(few, few, torch.bfloat16), LargePlan)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scattered_batch_of_many_adapters_and_sizes(dtype: torch.dtype, repeats: bool) -> None:
    made = [made_pack(rank, dtype) for rank in (2, 16, 4)]
    counts = [3, 1, 40]
    order = np.random.default_rng(0).permutation(60)[: sum(counts)]
    x, before = torch.randn(60, D_IN).to(dtype), torch.randn(60, WIDTH).to(dtype)
    ends = np.cumsum(counts)
    slices = [slice(int(end) - count, int(end)) for end, count in zip(ends, counts, strict=True)]
    products = [Product(rows, pack, None) for rows, (pack, _) in zip(slices, made, strict=True)]
    products.append(Product(slices[1], made[0][0], None))  # a stack of two, not joined
    plan, expected = plan_layer(order, products, before, repeats=repeats), before.double()
    for rows, (_, delta) in zip([*slices, slices[1]], [*made, made[0]], strict=True):
        expected[order[rows]] += x[order[rows]].double() @ delta.T
    tolerance = 1e-3 if dtype == torch.float32 else 2.0
    for _ in range(3):
        y = before.clone()
        plan.add_deltas(y, x)
        torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=0.02)
        out = np.setdiff1d(np.arange(60), order)
        assert torch.equal(y[out], before[out])


def test_a_plan_keeps_nothing_of_the_step_before() -> None:
    pack, _ = made_pack(4)
    plan = plan_layer(slice(1, 3), [Product(slice(0, 2), pack, None)], torch.empty(4, WIDTH), repeats=True)
    x, y = torch.randn(4, D_IN), torch.zeros(4, WIDTH)
    plan.add_deltas(torch.zeros(4, WIDTH), torch.randn(4, D_IN) * 1e6)
    plan.add_deltas(y, x)
    fresh = torch.zeros(4, WIDTH)
    plan_layer(slice(1, 3), [Product(slice(0, 2), pack, None)], fresh, repeats=True).add_deltas(fresh, x)
    assert torch.equal(y, fresh)
