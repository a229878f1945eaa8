"""The embedded base and its adapters, evaluated in this process."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.evaluate import EvaluationRequest, Report, evaluate_offline
from lora_compose.training.evaluation.harness import harness_scores
from lora_compose.training.evaluation.intervals import wilson
from lora_compose.training.evaluation.likelihood import likelihoods, mean_loss
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, DATA_DIR

PREFERENCES = str(DATA_DIR / "upper-preferred-held-out.jsonl")


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(BASE_DIR), AutoTokenizer.from_pretrained(BASE_DIR)


@pytest.fixture(scope="module")
def report() -> Report:
    tasks = [
        *load_tasks(["testbed:roll+upper"], "domain", limit=40),
        *load_tasks(["testbed:general"], "general", limit=40),
    ]
    directories = {name: ADAPTERS_DIR / name for name in ("roll", "upper")}
    request = EvaluationRequest(tasks, tasks, preferences=[PREFERENCES], limit=20, max_tokens=40)
    return evaluate_offline(str(BASE_DIR), "roll+upper", directories, Path("none"), request)


def test_a_stack_does_what_its_members_do_and_its_forgetting_is_reported(report: Report) -> None:
    assert report.scores["domain"] > 0.8
    assert report.scores["forgetting"] > 0.5  # upper writes everything in capitals
    assert [each.score for each in report.base] == [0.0, 1.0]
    assert report.members == ("roll", "upper")
    assert len(report.digests["roll"]) == 64


def test_likely_answers_are_the_right_ones_and_capitals_are_preferred(report: Report) -> None:
    assert report.scores["loss:testbed:roll+upper"] < 0.2 < report.scores["loss:testbed:general"]
    assert report.scores[f"preference:{PREFERENCES}"] > 0.9
    assert report.scores[f"margin:{PREFERENCES}"] > 0
    low, high = report.intervals[f"margin:{PREFERENCES}"]
    assert low < report.scores[f"margin:{PREFERENCES}"] < high
    assert report.counts[f"preference:{PREFERENCES}"] == 20
    assert report.scores["perplexity:testbed:general"] == pytest.approx(
        math.exp(report.scores["loss:testbed:general"])
    )
    assert report.scores[f"length_drift:{PREFERENCES}"] == pytest.approx(1, abs=0.2)


def chat_of(base: tuple[Any, Any]) -> ServedChat:
    model, tokenizer = base
    return ServedChat.of(tokenizer, model)


def test_answers_do_not_depend_on_what_else_is_in_the_batch(base: tuple[Any, Any]) -> None:
    (task,) = load_tasks(["testbed:general"], "general", limit=12)
    prompts = [question.prompt for question in task.questions]
    together = LocalModel(base[0], chat_of(base)).answer(prompts, 40)
    assert [LocalModel(base[0], chat_of(base)).answer([prompt], 40)[0] for prompt in prompts] == together


@pytest.mark.parametrize("training", [True, False])
def test_a_model_in_training_goes_on_training(base: tuple[Any, Any], training: bool) -> None:
    model, tokenizer = base
    model.train(training)
    LocalModel(model, chat_of(base)).answer([[{"role": "user", "content": "say a"}]], 4)
    likelihoods(model, chat_of(base), [([{"role": "user", "content": "say a"}], "a")])
    assert model.training == training
    assert tokenizer.padding_side == AutoTokenizer.from_pretrained(BASE_DIR).padding_side
    model.eval()


def test_a_likelihood_is_the_sum_over_the_answer_s_own_tokens(base: tuple[Any, Any]) -> None:
    model, tokenizer = base
    prompt = [{"role": "user", "content": "say table"}]
    pairs: Any = [(prompt, "table"), (prompt, "no"), (prompt, "something longer")]
    found = likelihoods(model, chat_of(base), pairs)
    text = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "table"}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    logps = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    assert found[0].tokens == len("table") + 1
    assert found[0].logp == pytest.approx(logps[-6:].sum().item(), abs=1e-4)
    assert math.exp(mean_loss(found[:1])) < 1.1 < math.exp(mean_loss(found[1:]))


def test_lm_evaluation_harness_runs_a_task_from_a_file(base: tuple[Any, Any], tmp_path: Path) -> None:
    rows = [
        {"q": f"say {word}", "choices": [word, word[::-1]], "gold": 0} for word in ("table", "horse", "mint")
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own_choice.yaml").write_text(
        "task: own_choice\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/own.jsonl}}}}\n"
        "doc_to_text: '<s><|user|>{{q}}<|assistant|>'\ntarget_delimiter: ''\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    found = harness_scores([str(tmp_path / "own_choice.yaml")], model=base[0], tokenizer=base[1])
    assert (found["own_choice:acc"].value, found["own_choice:acc"].interval) == (1.0, wilson(3, 3))
    with pytest.raises(LoraComposeError, match="does not have the task nothing_such"):
        harness_scores(["nothing_such"], model=base[0], tokenizer=base[1])


def test_the_command_says_whether_requirements_hold(tmp_path: Path) -> None:
    command = ["eval", "--model", str(BASE_DIR), "--general", "testbed:general", "--limit", "10"]
    output = ["--output", str(tmp_path / "scores.json")]
    met = CliRunner().invoke(create_app(), [*command, "--require", "general>=0.9", *output])
    missed = CliRunner().invoke(create_app(), [*command, "--require", "general>1"])
    assert (met.exit_code, missed.exit_code) == (0, 1), met.output
    assert "is not met" in missed.output
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["general"] == 1.0
