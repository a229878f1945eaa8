"""Coefficients are learned by gradient, and the adapter that is written has exactly their weighted sum."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.models import Loaded
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.testbed.language import answer, prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from lora_compose.training.tuning.coefficients import Granularity, Plan, Stacked, learn
from lora_compose.training.tuning.comparison import compare


def task(n: int, seed: int) -> Task:
    rows = prompts(n, seed=seed, skill="roll")
    made = (Question([{"role": "user", "content": text}], answer("roll", ["wrap"], w)) for text, w in rows)
    return Task("roll+wrap", "domain", tuple(made))


@pytest.fixture(scope="module")
def base() -> Loaded:
    model = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    return Loaded(model, ServedChat.of(AutoTokenizer.from_pretrained(BASE_DIR), model))


def members() -> list[Lora]:
    return [open_adapter(ADAPTERS_DIR / name) for name in ("roll", "wrap")]


@pytest.mark.parametrize(("granularity", "groups"), [("adapter", 1), ("layer", 4), ("module", 28)])
def test_the_adapter_is_the_sum_at_its_coefficients(granularity: Granularity, groups: int) -> None:
    stacked = Stacked.of(members(), [1.0, 0.5], granularity)
    assert len(stacked.values) == groups
    with torch.no_grad():
        for i, value in enumerate(stacked.values.values()):
            value += 0.1 * i
    whole = stacked.adapter().modules
    roll, wrap = (lora.modules for lora in members())
    for name in roll:
        first, second = (float(stacked.coefficient(i, name).detach()) for i in (0, 1))
        expected = first * roll[name].delta() + second * wrap[name].delta()
        torch.testing.assert_close(whole[name].delta(), expected, atol=1e-5, rtol=1e-4)


def test_the_hooks_answer_as_the_written_adapter_and_leave_the_base_as_it_was(base: Loaded) -> None:
    stacked = Stacked.of(members(), [1.0, 0.75], "module")
    ids = torch.tensor([[1, 5, 9, 12]])
    with torch.no_grad():
        plain = base.model(ids).logits
        with stacked.on(base.model):
            hooked = base.model(ids).logits
        assert torch.equal(base.model(ids).logits, plain)
        weights = {name: base.model.get_submodule(name).weight for name in stacked.groups}
        copies = {name: weight.clone() for name, weight in weights.items()}
        for name, module in stacked.adapter().modules.items():
            weights[name].add_(module.delta())
        torch.testing.assert_close(base.model(ids).logits, hooked, atol=1e-4, rtol=1e-4)
        for name, weight in weights.items():
            weight.copy_(copies[name])


def test_learned_coefficients_win_on_rows_that_they_did_not_see(base: Loaded) -> None:
    found = compare(base, members(), [1.0, 1.0], (task(32, 77), task(32, 1000)), Plan("layer", steps=40))
    given, *learned = found.candidates
    assert [len(candidate.stacked.values) for candidate in found.candidates] == [1, 1, 4]
    assert max(candidate.held_out.score for candidate in learned) > given.held_out.score
    assert found.winner.held_out.score == max(candidate.held_out.score for candidate in found.candidates)
    assert all(parameter.requires_grad for parameter in base.model.parameters())


def test_of_equal_candidates_the_one_with_fewer_coefficients_wins(base: Loaded) -> None:
    found = compare(base, members(), [1.0, 1.0], (task(4, 77), task(4, 1000)), Plan("module", steps=1))
    scores = [candidate.held_out.score for candidate in found.candidates]
    assert found.winner is found.candidates[scores.index(max(scores))]


def test_learning_twice_gives_the_same_coefficients(base: Loaded) -> None:
    found = []
    for _ in range(2):
        stacked = Stacked.of(members(), [1.0, 1.0], "layer")
        learn(base, stacked, task(8, 77), Plan("layer", steps=2))
        found.append(stacked.to_dict())
    assert found[0] == found[1] != Stacked.of(members(), [1.0, 1.0], "layer").to_dict()


def test_an_adapter_with_a_bias_is_refused() -> None:
    module = LoraModule(torch.ones(1, 4), torch.ones(4, 1), 1.0, bias=torch.ones(4))
    with pytest.raises(AdapterRejected, match="without DoRA"):
        Stacked.of([Lora({"model.layers.0.mlp.up_proj": module})], [1.0], "layer")


def test_the_command_writes_the_winner_and_its_figures(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    questions = task(12, 77).questions
    lines = [{"prompt": q.prompt[0]["content"], "completion": q.answer} for q in questions]
    rows.write_text("\n".join(map(json.dumps, lines)))
    adapters = [f"{name}={ADAPTERS_DIR / name}" for name in ("roll", "wrap")]
    words = ["train", "weights", "roll+wrap", tmp_path / "out", "--rows", rows, "--gated", "--steps", 3]
    words += ["--model", BASE_DIR, "--adapter", adapters[0], "--adapter", adapters[1], "--json"]
    result = CliRunner().invoke(create_app(), list(map(str, words)))
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [row["coefficients"] for row in facts["learned"]["candidates"]] == [2, 2, 56]
    assert facts["learned"]["held_out_rows"] == 6
    assert open_adapter(tmp_path / "out").rank == 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.0.mlp.up_proj", r"the base has \(\d+, \d+\) there"),
        ("model.layers.99.up", "no such layer"),
    ],
)
def test_adapters_of_another_base_are_refused(base: Loaded, name: str, words: str) -> None:
    module = LoraModule(torch.ones(1, 4), torch.ones(4, 1), 1.0)
    with pytest.raises(AdapterRejected, match=words) as refused:
        Stacked.of([Lora({name: module})], [1.0], "layer").check_fits(base.model)
    assert refused.value.code == "wrong_base"


def test_learning_ends_with_its_time(base: Loaded) -> None:
    steps: list[int] = []
    plan = Plan("adapter", steps=10**6, seconds=1.0)
    stacked = Stacked.of(members(), [1.0, 1.0], "adapter")
    learn(base, stacked, task(8, 77), plan, lambda step, _: steps.append(step))
    assert 1 < steps[-1] < 10**4


def test_a_model_without_a_kind_of_weights_is_refused(tmp_path: Path) -> None:
    words = ["train", "weights", "a+b", tmp_path / "out", "--rows", tmp_path, "--model", BASE_DIR]
    assert CliRunner().invoke(create_app(), list(map(str, words))).exit_code == 2
