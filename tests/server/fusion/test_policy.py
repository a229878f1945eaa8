from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compose.server.fusion.policy import Decision, FusePolicy, FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs, Model, mean_price, token_price, worst_loss

COSTS = Costs(overhead=0.12, per_member=0.04, switch_seconds=3.0)
HOT: Mapping[Model, int] = {"hot@1": 900, None: 100}

models = st.sampled_from([None, "a@1", "a@1:0.5", "a@1+b@1", "b@1", "ties(a@1+b@1,density=0.5)"])
prices = st.builds(Costs, st.floats(0, 0.5), st.floats(0, 0.3), st.just(1.0))
mixes = st.dictionaries(models, st.integers(0, 2000), max_size=4)


def drive(
    policy: FusePolicy,
    traffic: Callable[[int], Mapping[Model, int]],
    seconds: int,
    costs: Costs = COSTS,
    start: int = 0,
) -> list[Decision]:
    """A fully busy server that asks the policy every second and follows each decision at once."""
    decisions = []
    for now in range(start, start + seconds):
        policy.observe(now, traffic(now), 1.0, costs)
        decisions.append(policy.decide(now))
        if decisions[-1].action != "keep":
            policy.switched(now, decisions[-1].model, costs.switch_seconds)
    return decisions


def switches(decisions: list[Decision]) -> list[int]:
    return [now for now, decision in enumerate(decisions) if decision.action != "keep"]


def test_a_steady_hot_adapter_is_fused_once_and_stays() -> None:
    decisions = drive(FusePolicy(), lambda _: HOT, 1000)
    (fused_at,) = switches(decisions)
    assert decisions[fused_at].action == "fuse"
    assert decisions[-1].model == "hot@1"


def test_the_expected_gain_is_the_share_of_serving_time_saved() -> None:
    (fuse,) = [made for made in drive(FusePolicy(), lambda _: HOT, 1000) if made.action == "fuse"]
    assert fuse.expected_gain == pytest.approx(1 - (900 + 100 * 1.12) / (900 * 1.12 + 100))


def test_the_base_is_restored_when_its_traffic_comes_back() -> None:
    decisions = drive(FusePolicy(), lambda now: HOT if now < 500 else {None: 1000}, 1000)
    assert [decisions[now].action for now in switches(decisions)] == ["fuse", "restore"]
    assert decisions[-1].model is None


def test_another_hot_adapter_is_fused_without_restoring_in_between() -> None:
    decisions = drive(FusePolicy(), lambda now: {"a@1" if now < 2000 else "b@1": 1000}, 4000)
    assert [decisions[now].model for now in switches(decisions)] == ["a@1", "b@1"]


@pytest.mark.parametrize("adapters", [2, 3, 8])
@pytest.mark.parametrize("per_member", [0.0, 0.04, 0.12])
def test_an_even_mix_is_never_fused(adapters: int, per_member: float) -> None:
    mix: Mapping[Model, int] = {f"a{number}@1": 1000 // adapters for number in range(adapters)}
    assert not switches(drive(FusePolicy(), lambda _: mix, 1500, Costs(0.12, per_member, 0.5)))


def test_an_unmeasured_overhead_never_fuses() -> None:
    decisions = drive(FusePolicy(), lambda _: HOT, 1000, Costs(overhead=None))
    assert not switches(decisions)
    assert "not measured" in decisions[-1].reason


@pytest.mark.parametrize("costs", [Costs(0.0, 0.0, 3.0), Costs(0.12, 0.04, 1e6)])
def test_what_saves_nothing_or_costs_too_much_is_never_done(costs: Costs) -> None:
    assert not switches(drive(FusePolicy(), lambda _: HOT, 1000, costs))


def test_base_traffic_alone_is_never_fused() -> None:
    assert not switches(drive(FusePolicy(), lambda _: {None: 1000}, 1000))


@given(st.lists(mixes, min_size=1, max_size=40), st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_no_two_switches_are_closer_than_the_dwell(phases: list[dict[Model, int]], dwell: int) -> None:
    eager = FusePolicySettings(
        half_life_seconds=1, min_dwell_seconds=dwell, margin=1, min_tokens=0, budget=0.5
    )
    costs = Costs(0.5, 0.1, 0.01)
    at = switches(drive(FusePolicy(eager), lambda now: phases[now // 20 % len(phases)], 800, costs))
    assert all(later - earlier >= dwell for earlier, later in pairwise(at))


@pytest.mark.parametrize("served", [0, 100, 600])
def test_an_idle_server_switches_nothing(served: int) -> None:
    policy = FusePolicy()
    drive(policy, lambda _: HOT, served)
    assert not switches(drive(policy, lambda _: {}, 5000, start=served))
    assert not switches(drive(policy, lambda _: {None: 0, "hot@1": 0}, 100, start=served + 5000))


def test_a_quiet_server_saves_too_little_to_fuse() -> None:
    policy = FusePolicy()
    for now in range(3000):
        policy.observe(now, HOT, 0.01, COSTS)
        assert policy.decide(now).action == "keep"


@given(st.lists(mixes, min_size=1, max_size=30), prices)
@settings(deadline=None, max_examples=60)
def test_every_decision_is_one_line_that_names_its_model(
    phases: list[dict[Model, int]], costs: Costs
) -> None:
    fused: Model = None
    for decision in drive(FusePolicy(), lambda now: phases[now // 30 % len(phases)], 900, costs):
        assert "\n" not in decision.reason
        concerned = [model for model in (fused, decision.model) if model is not None]
        assert not concerned or any(model in decision.reason for model in concerned)
        assert (decision.model != fused) == (decision.action != "keep")
        fused = decision.model


def test_deciding_changes_nothing() -> None:
    policy = FusePolicy()
    drive(policy, lambda _: HOT, 100)
    assert policy.decide(100) == policy.decide(100)


def test_what_is_not_carried_out_is_decided_again() -> None:
    policy = FusePolicy()
    for now in range(1000):
        policy.observe(now, HOT, 1.0, COSTS)
    assert policy.decide(999).action == policy.decide(1000).action == "fuse"


@given(models, models, prices)
def test_only_what_is_fused_is_free_of_lora_work(wanted: Model, fused: Model, costs: Costs) -> None:
    price = token_price(wanted, fused, costs)
    assert price == 1.0 if wanted == fused else price >= 1.0 + (costs.overhead or 0.0)
    assert price == token_price(fused, wanted, costs)


@pytest.mark.parametrize(
    ("wanted", "fused", "members"),
    [
        ("a@1+b@1", None, 2),
        ("a@1+b@1", "a@1", 1),
        ("a@1+b@1", "a@1:0.5", 2),
        ("a@1:0.5", "a@1", 1),
        ("a@2", "a@1", 2),
        ("a@1+b@1:0", "a@1", 0),
        ("ties(a@1+b@1,density=0.5)", "a@1", 2),
    ],
)
def test_members_of_equal_weight_cancel(wanted: Model, fused: Model, members: int) -> None:
    costs = Costs(1.0, 1.0)
    assert token_price(wanted, fused, costs) == 1 + members


@given(models, st.dictionaries(models, st.integers(1, 9), min_size=1), prices)
def test_no_mix_loses_more_than_the_worst_loss(fused: Model, mix: dict[Model, int], costs: Costs) -> None:
    lost = 1 - mean_price(mix, None, costs) / mean_price(mix, fused, costs)
    assert lost <= worst_loss(2, costs) + 1e-12


@pytest.mark.parametrize("wrong", [{"overhead": -0.1}, {"overhead": float("nan")}, {"switch_seconds": -1.0}])
def test_what_is_no_cost_is_refused(wrong: dict[str, float]) -> None:
    ((field, _),) = wrong.items()
    with pytest.raises(ValueError, match=field):
        Costs(**({"overhead": 0.1} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_life_seconds": 0.0},
        {"min_dwell_seconds": -1.0},
        {"margin": 0.5},
        {"min_share": 0.5},
        {"min_tokens": -1.0},
        {"budget": 0.0},
        {"budget": float("nan")},
    ],
)
def test_a_setting_that_cannot_work_is_refused_naming_its_flag_and_value(wrong: dict[str, float]) -> None:
    ((field, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"--fuse-{field.replace('_', '-')} \\({value}\\)"):
        FusePolicySettings(**wrong)
