import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compose.benchmarks.auto_fuse.comparison import (
    COST_BOUND,
    GAIN_BOUND,
    ComparisonRow,
    mismeasured,
    rows,
)
from lora_compose.benchmarks.auto_fuse.replay import fixed_cost, hindsight, hostile, replayed
from lora_compose.benchmarks.auto_fuse.simulator import main
from lora_compose.benchmarks.auto_fuse.traces import Second, Trace, alternating, bursty, even, steady, zipf
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs, Model, worst_loss

COSTS = Costs(overhead=0.12, per_member=0.04, switch_seconds=3.0)
MODELS = [None, "a@1", "a@1:0.5", "b@1", "a@1+b@1"]

seconds = st.dictionaries(st.sampled_from(MODELS), st.integers(0, 400), max_size=4)
costs = st.builds(Costs, st.floats(0.01, 0.5), st.floats(0, 0.3), st.floats(0.001, 3))
policies = st.builds(
    FusePolicySettings,
    half_life_seconds=st.floats(0.5, 60),
    min_dwell_seconds=st.floats(0, 40),
    margin=st.floats(1, 3),
    min_share=st.floats(0.51, 1),
    min_tokens=st.floats(0, 1000),
)


@st.composite
def any_trace(draw_from: st.DrawFn) -> Trace:
    """Phases of one mix each, up to some twenty minutes."""
    phases = draw_from(st.lists(st.tuples(seconds, st.integers(1, 300)), min_size=1, max_size=8))
    repeats = draw_from(st.integers(1, 3))
    asked: list[Second] = [mix for mix, length in phases for _ in range(length)]
    return Trace("any", tuple(asked * repeats))


@given(any_trace(), policies, costs, st.sampled_from([0.5, 0.7, 1.0, 1.3, 2.0]))
@settings(deadline=None, max_examples=100)
def test_no_trace_costs_more_than_the_bound_even_where_prices_are_measured_badly(
    trace: Trace, policy: FusePolicySettings, true: Costs, factor: float
) -> None:
    cost = replayed(trace, policy, true, mismeasured(true, factor)).cost_seconds
    assert cost <= COST_BOUND * fixed_cost(trace, None, true) + 1e-9


@given(policies, costs)
@settings(deadline=None, max_examples=25)
def test_not_even_traffic_that_knows_the_policy_costs_more_than_the_budget(
    policy: FusePolicySettings, true: Costs
) -> None:
    trace = hostile(0, 900, policy, true)
    one_second = 0.7 * worst_loss(1, true)
    never = fixed_cost(trace, None, true)
    assert replayed(trace, policy, true, true).cost_seconds <= (1 + policy.budget) * never + one_second


@pytest.mark.parametrize("turn", [10, 20, 30, 45, 60, 90, 120, 200, 300])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_adapters_that_take_turns_cost_no_more_than_the_bound(turn: int, factor: float) -> None:
    trace = alternating(1, 1800, turn)
    cost = replayed(trace, FusePolicySettings(), COSTS, mismeasured(COSTS, factor)).cost_seconds
    assert cost <= COST_BOUND * fixed_cost(trace, None, COSTS)


@pytest.mark.parametrize("seed", range(3))
def test_a_steady_hot_adapter_gets_most_of_what_hindsight_gets(seed: int) -> None:
    for row in rows(steady(seed, 3600), COSTS, FusePolicySettings(), GAIN_BOUND):
        assert (row.best, row.outcome.fuses) == ("hot@1", {"hot@1": 1})
        assert row.kept


@pytest.mark.parametrize("adapters", [2, 3, 8])
def test_an_even_mix_is_served_as_if_never_fused(adapters: int) -> None:
    trace = even(0, 1200, adapters)
    outcome = replayed(trace, FusePolicySettings(), COSTS, COSTS)
    assert outcome.switched_at == ()
    assert outcome.cost_seconds == fixed_cost(trace, None, COSTS)


@given(any_trace(), policies, costs)
@settings(deadline=None, max_examples=30)
def test_switches_keep_the_dwell(trace: Trace, policy: FusePolicySettings, true: Costs) -> None:
    at = replayed(trace, policy, true, true).switched_at
    assert all(b - a >= policy.min_dwell_seconds for a, b in pairwise(at))


@given(any_trace(), costs)
@settings(deadline=None, max_examples=30)
def test_hindsight_is_never_dearer_than_never_fusing(trace: Trace, true: Costs) -> None:
    best = hindsight(trace, true, trace.models)
    assert fixed_cost(trace, best, true) <= fixed_cost(trace, None, true)


@pytest.mark.parametrize("fused", [None, "hot@1", "mild@1"])
def test_a_second_of_silence_costs_nothing(fused: Model) -> None:
    switch = 0.0 if fused is None else COSTS.switch_seconds
    assert fixed_cost(Trace("silence", ({}, {"hot@1": 0})), fused, COSTS) == switch


def test_a_trace_is_the_same_for_the_same_seed_only() -> None:
    for make in (steady, bursty, zipf):
        assert make(1, 60) == make(1, 60) != make(2, 60)


def test_a_row_misses_its_bound_where_too_little_is_gained() -> None:
    (row, *_) = rows(steady(0, 60), COSTS, FusePolicySettings(), GAIN_BOUND)
    assert row.outcome.fuses == {}
    assert not row.kept
    assert ComparisonRow(**(vars(row) | {"gain_bound": None})).kept


def test_the_command_says_what_was_kept_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--seconds", "60", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 1  # a minute is too short to earn a fuse
    assert "3 of 21 rows miss a bound" in capsys.readouterr().out
    assert [row["kept"] for row in found["rows"]] == [False] * 3 + [True] * 18


@pytest.mark.parametrize("wrong", [["--overhead", "-1"], ["--seconds", "0"], ["--switch-seconds", "nan"]])
def test_what_cannot_be_simulated_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
    assert wrong[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")
