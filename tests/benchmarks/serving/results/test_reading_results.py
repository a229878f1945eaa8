"""Reading a result: ratios, crossovers, advice, comparison and tables."""

from dataclasses import replace

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.benchmarks.serving.report.tables import markdown
from lora_compose.benchmarks.serving.results.advice import ExpectedTraffic, advise
from lora_compose.benchmarks.serving.results.comparison import compare, holm
from lora_compose.benchmarks.serving.results.crossovers import crossovers
from lora_compose.benchmarks.serving.results.summary import summarize
from tests.benchmarks.serving.made_results import CELL, result

COSTS = {"base": 0.100, "stack:2": 0.120, "merge:2": 0.110, "fused:2": 0.100, "residual:2": 0.110}


def test_a_ratio_is_taken_inside_a_repeat_so_that_a_slow_minute_is_in_neither() -> None:
    found = summarize(result(COSTS)).find(CELL, "stack:2")
    assert found is not None
    assert found.ratios["tpot"].median == pytest.approx(1.2, rel=0.03)
    assert found.ratios["tpot"].high - found.ratios["tpot"].low < 0.1


def test_a_hundred_requests_are_too_few_for_a_p99() -> None:
    found = summarize(result(COSTS)).find(CELL, "base")
    assert found is not None
    quantity = found.metrics["e2el"]
    assert (quantity.count, quantity.p99) == (100, None)
    assert quantity.p90 is not None


def test_a_one_time_cost_of_a_second_and_a_saving_of_ten_ms_pay_off_after_a_hundred_requests() -> None:
    document = result(COSTS, noise=0.001)
    points = {one.what: one.at for one in crossovers(document, summarize(document))}
    assert points["merge:2 against stack:2"] == pytest.approx(100, rel=0.2)
    assert points["fused:2 against stack:2"] == pytest.approx(50, rel=0.2)
    # Other requests lose 10 ms and its own win 20 ms, so the share is a third.
    assert points["fused:2 among others"] == pytest.approx(1 / 3, rel=0.2)


@pytest.mark.parametrize(
    ("traffic", "way"),
    [
        (ExpectedTraffic(share=0.9), "fuse"),
        (ExpectedTraffic(share=0.1), "stack"),
        (ExpectedTraffic(share=0.9, requests=10), "stack"),
        (ExpectedTraffic(share=0.1, accept_loss=True), "merge"),
    ],
)
def test_advice_follows_the_traffic(traffic: ExpectedTraffic, way: str) -> None:
    document = result(COSTS, noise=0.001)
    advice = advise(document, summarize(document), traffic)
    assert advice.way == way
    assert "nats" in advice.text


def test_two_runs_of_the_same_are_no_change_at_least_nineteen_times_in_twenty() -> None:
    pairs = [(result(COSTS, seed=seed), result(COSTS, seed=1000 + seed)) for seed in range(100)]
    assert sum(compare(*pair).is_changed for pair in pairs) <= 5


def test_an_arm_that_got_a_fifth_slower_is_a_change_and_the_only_one() -> None:
    slower = COSTS | {"stack:2": 1.2 * COSTS["stack:2"]}
    found = compare(result(COSTS), result(slower, seed=1))
    assert {one.arm for one in found.changes if one.changed} == {"stack:2"}


def test_requests_that_fail_only_in_the_second_are_a_change() -> None:
    broken = result(COSTS)
    broken.passes[1].rows[0].failure = "http_500"
    assert compare(result(COSTS), broken).is_changed


def test_results_of_two_workloads_are_not_compared() -> None:
    other = result(COSTS)
    other.plan = replace(other.plan, prompt_tokens=999)
    with pytest.raises(InvalidRequest, match="999"):
        compare(result(COSTS), other)


def test_holms_correction_multiplies_the_smallest_by_how_many_there_are() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_markdown_has_every_arm_and_the_caveats() -> None:
    document = result(COSTS)
    document.passes[1].rows[0].failure = "wrong_answer"
    found = summarize(document)
    text = markdown(document, found, "Advice.", ["A point."])
    assert all(f"| {arm} |" in text for arm in COSTS)
    assert "1 of 100 requests failed: wrong answer" in text


def test_answers_in_one_chunk_have_no_gaps_and_change_nothing_else() -> None:
    document = result({"base": 1.0, "single": 1.2})
    for one in document.passes:
        for each in one.rows:
            each.times = each.times[-1:]
    summary = summarize(document).find(CELL, "single")
    assert summary is not None
    assert "itl" not in summary.ratios
    assert {"output_throughput", "ttft"} <= summary.ratios.keys()
