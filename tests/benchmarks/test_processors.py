"""The load of the processors, from the system's own counters."""

from lora_compose.benchmarks.processors import ProcessorTimes


def test_a_share_is_of_the_time_between_two_readings() -> None:
    before, after = ProcessorTimes(100.0, 40.0, 5.0), ProcessorTimes(110.0, 44.0, 7.0)
    assert before.busy_share(after) == 0.6
    assert before.stolen_share(after) == 0.2


def test_two_readings_at_the_same_moment_have_no_load() -> None:
    now = ProcessorTimes.now()
    assert (now.busy_share(now), now.stolen_share(now)) == (0.0, 0.0)


def test_the_counters_of_this_machine_grow_with_the_time() -> None:
    first = ProcessorTimes.now()
    while (later := ProcessorTimes.now()).total == first.total:
        pass
    assert 0 <= first.busy_share(later) <= 1
