"""When a result is too noisy for a recommendation."""

import pytest

from lora_compose.benchmarks.serving.results.advice import advise
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.noise import INTERVAL, REPEATS_DIFFER, is_narrow
from lora_compose.benchmarks.serving.results.summary import summarize
from lora_compose.benchmarks.statistics import Spread
from tests.benchmarks.serving.made_results import result

COSTS = {"base": 0.100, "stack:2": 0.120}


def reasons(document: BenchmarkResult) -> tuple[str, ...]:
    advice = advise(document, summarize(document))
    assert (advice.way is None) == bool(advice.noise)
    return advice.noise


def slowed(document: BenchmarkResult, arm: str, factors: list[float]) -> BenchmarkResult:
    """The repeats of `arm` take longer by these factors."""
    for run in document.passes:
        if run.arm == arm:
            run.seconds *= factors[run.repeat]
    return document


def quiet() -> BenchmarkResult:
    document = result(COSTS, noise=0.001)
    document.others_busy = [0.02] * 6
    document.stolen = [0.01] * 5
    return document


def test_a_quiet_result_gives_a_recommendation() -> None:
    assert reasons(quiet()) == ()


def test_an_old_result_without_the_load_of_others_gives_a_recommendation_too() -> None:
    assert reasons(result(COSTS, noise=0.001)) == ()


def test_a_busy_machine_gives_none_and_says_how_busy() -> None:
    document = quiet()
    document.others_busy = [0.02, 0.53, 0.5, 0.55, 0.5, 0.5]
    (reason,) = reasons(document)
    assert "Other programs used 50 % of the processors" in reason


def test_one_busy_moment_among_six_is_no_reason() -> None:
    document = quiet()
    document.others_busy = [0.02, 0.9, 0.02, 0.02, 0.03, 0.02]
    assert reasons(document) == ()


def test_a_hypervisor_that_gives_the_time_to_others_gives_none() -> None:
    document = quiet()
    document.stolen = [0.2] * 5
    (reason,) = reasons(document)
    assert "The hypervisor gave 20 %" in reason


def test_repeats_of_the_base_that_differ_give_none() -> None:
    factors = [1, 1, 2 * REPEATS_DIFFER, 1, 1]
    document = slowed(slowed(quiet(), "base", factors), "stack:2", factors)
    (reason,) = reasons(document)
    assert reason.startswith("The repeats of the base differ too much")


def test_a_wide_interval_gives_none() -> None:
    document = slowed(quiet(), "stack:2", [1, 0.5, 2, 1, 3])
    assert any("The interval of stack:2 is too wide" in reason for reason in reasons(document))


@pytest.mark.parametrize("repeats", [1, 2])
def test_one_or_two_repeats_have_no_interval_and_give_none(repeats: int) -> None:
    assert any(f"Only {repeats} repeat" in reason for reason in reasons(result(COSTS, repeats, noise=0.001)))


def test_what_to_do_follows_the_reasons() -> None:
    document = quiet()
    document.others_busy = [1.0] * 6
    lines = advise(document, summarize(document)).text.splitlines()
    assert lines[0].startswith("No recommendation")
    assert lines[-1].startswith("What to do: end other programs")


def test_the_interval_that_is_reported_today_as_77_times_is_not_narrow() -> None:
    assert not is_narrow(Spread(5, 77.4, 1.64, 424.06, 1.64, 424.06))
    assert is_narrow(Spread(5, 1.0, 0.8, 1.2, 1.0, INTERVAL))
