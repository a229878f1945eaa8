"""A quota allows no more at once and no less over time than it says, and a debt is paid first."""

from hypothesis import given
from hypothesis import strategies as st

from lora_compose.server.tenants.key import Quotas
from lora_compose.server.tenants.quotas import Account, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5))), st.integers(1, 20))
def test_what_is_taken_without_debt_stays_below_the_rate(asked: list[tuple[float, int]], amount: int) -> None:
    clock = Clock()
    bucket, taken = TokenBucket(amount, 60, clock), 0
    for pause, cost in asked:
        clock.now += pause
        if not bucket.wait(cost):
            bucket.take(cost)
            taken += cost
        assert taken <= amount * (1 + clock.now / 60) + 1e-6


@given(st.integers(1, 100), st.integers(0, 300))
def test_after_the_wait_that_was_told_it_can_be_had_and_not_long_before(amount: int, debt: int) -> None:
    clock = Clock()
    bucket = TokenBucket(amount, 60, clock)
    bucket.take(debt)
    wait = bucket.wait(1)
    clock.now += wait * 0.9
    assert not wait or bucket.wait(1)
    clock.now += wait * 0.1 + 1e-6
    assert bucket.wait(1) < 1e-5


def test_what_can_never_fit_is_told_so() -> None:
    assert TokenBucket(3, 60).wait(4) == float("inf")


@given(st.integers(1, 5000))
def test_a_sixth_of_a_minute_s_requests_may_come_at_once_and_never_more_than_a_minute_s(bound: int) -> None:
    account, answered = Account(Quotas(requests_per_minute=bound)), 0
    bucket = account.buckets["requests_per_minute"]
    assert abs(bucket.amount * 60 / bucket.seconds - bound) < 1e-6
    while not bucket.wait(1):
        bucket.take(1)
        answered += 1
    assert min(bound, 10) <= answered <= max(10, bound / 6 + 1)
