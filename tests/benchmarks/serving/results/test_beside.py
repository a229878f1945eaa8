import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.benchmarks.serving.results.beside import beside_llamacpp, split_batches
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Plan, parse_arms, weighted
from tests.benchmarks.serving.made_results import CELL, result

SECONDS = {"base": 0.1, "single": 0.2, "llamacpp:0": 0.05, "llamacpp:1": 0.4}


def measured(compositions: int = 1) -> BenchmarkResult:
    document = result(SECONDS, noise=0.0)
    for run in document.passes:
        for row in run.rows:
            row.composition = row.i % compositions
    plan = Plan(arms="single,llamacpp", concurrency=(CELL.concurrency or 0,), compositions=compositions)
    return document.model_copy(update={"plan": plan})


def test_one_word_adds_the_counterpart_of_every_exact_arm() -> None:
    names = [arm.name for arm in parse_arms("single,llamacpp,stack:2,merge:2,weights:2,peft:1")]
    assert names == [
        *("base", "single", "stack:2", "merge:2", "weights:2", "peft:1"),
        *("llamacpp:0", "llamacpp:1", "llamacpp:2", "llamacpp-weights:2"),
    ]
    assert [arm.name for arm in parse_arms("llamacpp:0,llamacpp:4")] == ["base", "llamacpp:0", "llamacpp:4"]


@pytest.mark.parametrize("arm", ["stack:0", "single:0", "llamacpp:-1", "llamacpp-weights:0"])
def test_only_llama_cpp_s_base_has_no_adapter(arm: str) -> None:
    with pytest.raises(InvalidRequest, match="is not an arm"):
        parse_arms(arm)


def test_each_composition_has_weights_of_its_own() -> None:
    sets = weighted(["a", "b", "c"], 2, 3)
    assert sets[0] == ("a:0.300", "b:1.200")
    assert len(set(sets)) == 3


def test_each_arm_is_compared_with_its_counterpart_and_its_own_base() -> None:
    base, single = beside_llamacpp(measured())
    assert (base.arm, single.arm) == ("base", "single")
    for row, ratio, own, theirs in ((base, 0.5, 1.0, 1.0), (single, 2.0, 0.5, 0.125)):
        assert row.ratio is not None
        assert row.own is not None
        assert row.llamacpp_own is not None
        assert row.ratio.median == pytest.approx(ratio)
        assert row.own.median == pytest.approx(own)
        assert row.llamacpp_own.median == pytest.approx(theirs)


def test_a_run_without_llama_cpp_has_no_comparison() -> None:
    assert beside_llamacpp(result({"base": 0.1, "single": 0.2})) == []


def test_split_batches_are_said_with_the_longest_wait() -> None:
    assert split_batches(measured()) == []
    (line,) = split_batches(measured(compositions=4))
    assert "llamacpp:1" in line
    assert "4 compositions" in line
