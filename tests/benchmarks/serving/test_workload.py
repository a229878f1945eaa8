"""Arms, plans, and the requests that follow from a seed."""

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from random import Random
from statistics import fmean, pstdev

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.benchmarks.serving.expected_answers import Expected, certain_tokens
from lora_compose.benchmarks.serving.load import Words, planned, prompt_pool, workload_digest
from lora_compose.benchmarks.serving.results.plan import (
    Cell,
    Plan,
    choices,
    model_of,
    parse_arm,
    parse_arms,
    spread_over,
)
from lora_compose.benchmarks.serving.results.stalls import stalls
from tests.benchmarks.serving.made_results import row

PLAN = Plan(rates=(5.0,), compositions=3)
OPEN = Cell("open", rate=5.0)


@pytest.mark.parametrize("name", ["base", "single", "stack:4", "merge:2", "fused:3", "vllm:1", "stack:2@r16"])
def test_the_name_of_an_arm_is_read_and_written_equally(name: str) -> None:
    assert parse_arm(name).name == name


@pytest.mark.parametrize("name", ["", "stak:2", "stack:0", "base:2", "stack:-1", "stack:2@16"])
def test_an_unknown_arm_is_refused_with_the_list_of_arms(name: str) -> None:
    with pytest.raises(InvalidRequest, match="merge:K"):
        parse_arm(name)


def test_the_base_is_always_measured_first() -> None:
    assert [arm.name for arm in parse_arms("stack:2,base")] == ["base", "stack:2"]


def test_an_arm_names_what_a_request_asks_for() -> None:
    assert model_of(parse_arm("stack:2"), "base", ["a@1", "b@2"], "svd") == "a@1+b@2"
    assert model_of(parse_arm("merge:2"), "base", ["a", "b"], "ties,density=0.5") == "ties(a+b,density=0.5)"
    assert model_of(parse_arm("residual:2"), "base", [], "svd") == "base"


def test_more_compositions_than_the_adapters_give_are_refused() -> None:
    assert len(choices(["a", "b", "c"], 2, 3)) == 3
    with pytest.raises(InvalidRequest, match="4 are needed"):
        choices(["a", "b", "c"], 2, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"repeats": 0}, {"skew": "zip:1"}, {"goodput": ("ttft:fast",)}, {"rates": (0.0,)}, {"output_tokens": 1}],
)
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="--"):
        replace(PLAN, **wrong)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_workload_and_another_gives_another() -> None:
    pool = prompt_pool(PLAN, Words(range(100)))
    other = replace(PLAN, seed=1)
    assert planned(PLAN, OPEN, 0) == planned(PLAN, OPEN, 0)
    assert planned(PLAN, OPEN, 0) != planned(PLAN, OPEN, 1)
    assert workload_digest(PLAN, pool) != workload_digest(other, prompt_pool(other, Words(range(100))))


def test_a_prompt_has_its_exact_length_with_the_frame_of_the_chat_template() -> None:
    framed = prompt_pool(PLAN, Words(range(100), [900, 901], [902]))
    assert {len(prompt) for prompt in framed} == {PLAN.prompt_tokens}
    assert all(prompt[:2] == [900, 901] and prompt[-1] == 902 for prompt in framed)
    assert 900 not in prompt_pool(replace(PLAN, prompt_tokens=5), Words(range(100), [900, 901], [902]))[0]


def test_an_open_loop_comes_at_its_rate_and_in_bursts_if_asked() -> None:
    def gaps(plan: Plan) -> list[float]:
        dues = [one.due for one in planned(plan, OPEN, 0)]
        return [after - before for before, after in pairwise(dues)]

    poisson = gaps(replace(PLAN, requests=4000))
    bursts = gaps(replace(PLAN, requests=4000, burstiness=0.25))
    assert fmean(poisson) == pytest.approx(0.2, rel=0.1)
    assert pstdev(poisson) == pytest.approx(0.2, rel=0.1)
    assert pstdev(bursts) == pytest.approx(0.4, rel=0.2)


def test_zipf_prefers_the_first_and_distinct_goes_round() -> None:
    counted = Counter(islice(spread_over(10, "zipf:1.1", Random(0)), 5000))
    assert counted[0] / counted[1] == pytest.approx(2**1.1, rel=0.15)
    assert list(islice(spread_over(3, "distinct", Random(0)), 4)) == [0, 1, 2, 0]
    assert set(islice(spread_over(3, "identical", Random(0)), 9)) == {0}


def test_only_the_certain_tokens_of_an_answer_are_compared() -> None:
    certain = certain_tokens([{"a": -0.1, "b": -3.0}, {"a": -0.70, "b": -0.69}, {"a": -0.1, "b": -3.0}])
    expected = Expected((1, 2, 3), certain)
    assert certain == 1
    assert expected.accepts([1, 9, 9])
    assert not expected.accepts([2, 2, 3])


def test_a_gap_without_waiting_requests_is_not_a_standstill() -> None:
    early, late = [row(number, 0.05) for number in range(3)], row(9, 0.05)
    moved = late.model_copy(
        update={
            "due": late.due + 1,
            "sent": late.sent + 1,
            "ended": late.ended + 1,
            "times": [time + 1 for time in late.times],
        }
    )
    assert stalls([*early, moved]) == []


def test_a_gap_with_waiting_requests_is_a_standstill() -> None:
    held = row(0, 0.05)
    held.times[2:] = [time + 0.3 for time in held.times[2:]]
    (found,) = stalls([held, *(row(number, 0.05) for number in range(1, 4))])
    assert found.seconds == pytest.approx(0.3, abs=0.02)
