"""Refusals are spaced: the first at once, later ones apart, and none waits too long."""

from lora_compose.server.http.pace import MAX_SECONDS, Pace


def test_the_first_goes_at_once_and_the_next_ones_apart() -> None:
    pace = Pace(per_second=4, clock=lambda: 100.0)
    assert [pace.delay() for _ in range(3)] == [0.0, 0.25, 0.5]


def test_an_idle_time_is_not_made_up_for() -> None:
    times = iter([0.0, 60.0, 60.0])
    pace = Pace(per_second=4, clock=times.__next__)
    assert [pace.delay() for _ in range(3)] == [0.0, 0.0, 0.25]


def test_each_waits_at_least_as_long_as_asked() -> None:
    pace = Pace(per_second=4, clock=lambda: 0.0)
    assert [pace.delay(1.0) for _ in range(3)] == [1.0, 1.25, 1.5]


def test_none_waits_longer_than_the_bound() -> None:
    pace = Pace(per_second=1, clock=lambda: 0.0)
    assert max(pace.delay(1.0) for _ in range(1000)) == MAX_SECONDS
