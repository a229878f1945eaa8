"""Which adapter has which rows of the pools."""

import random

import pytest

from lora_compose.server.engine.device.rank_pool import RankPool


def test_the_least_recently_used_adapter_leaves_first() -> None:
    pool = RankPool(10)
    for name in "abc":
        pool.allocate(name, 3, ())
    pool.rows("a")
    assert len(pool.allocate("d", 4, ())) == 4
    assert [name in pool for name in "abcd"] == [True, False, True, True]


def test_an_adapter_of_the_batch_never_leaves() -> None:
    pool = RankPool(6)
    pool.allocate("a", 3, ())
    pool.allocate("b", 3, ())
    pool.allocate("c", 3, {"a", "c"})
    assert "a" in pool
    assert "b" not in pool
    with pytest.raises(RuntimeError, match="rank 5 does not fit: 3 of 6 ranks can be freed"):
        pool.allocate("d", 5, {"a", "d"})
    assert "c" in pool
    assert "a" in pool


def test_no_row_is_lost_or_given_twice() -> None:
    pool, draw = RankPool(64), random.Random(1)
    for _ in range(500):
        name = f"m{draw.randrange(30)}"
        if name in pool and draw.random() < 0.5:
            pool.free(name)
        elif name not in pool:
            pool.allocate(name, draw.randrange(1, 33), ())
        pool.check_integrity()
