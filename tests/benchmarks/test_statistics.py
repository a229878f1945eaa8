import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compose.benchmarks.statistics import bootstrap_interval, ratios_by_round, spread

values = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=15)


@settings(max_examples=15, deadline=None)
@given(values, st.integers(0, 9))
def test_an_interval_is_the_same_for_the_same_seed_and_stays_inside_the_values(
    numbers: list[float], seed: int
) -> None:
    low, high = bootstrap_interval(numbers, seed)
    assert (low, high) == bootstrap_interval(numbers, seed)
    assert min(numbers) <= low <= high <= max(numbers)


def test_an_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(60, 15))
    intervals = [bootstrap_interval(row.tolist(), 1) for row in draws]
    assert 0.88 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 1


def test_what_drifts_between_rounds_is_not_in_the_ratios() -> None:
    drift = {number: 100.0 * 2**number for number in range(6)}
    slower = {number: 0.8 * value for number, value in drift.items()}
    ratios = spread(ratios_by_round(slower, drift), seed=0)
    assert ratios is not None
    assert [ratios.minimum, ratios.median, ratios.maximum] == pytest.approx([0.8] * 3)


def test_a_round_that_one_arm_lacks_or_whose_reference_is_zero_gives_no_ratio() -> None:
    assert ratios_by_round({0: 1.0, 2: 3.0, 3: 1.0}, {1: 1.0, 2: 2.0, 3: 0.0}) == [1.5]
    assert spread([], seed=0) is None
