"""A running server gets the same scores as the same model in this process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.evaluate import EvaluationRequest, evaluate_offline, evaluate_served
from lora_compose.training.evaluation.held_out_text import load_text
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from tests.running_server import RunningServer

DIRECTORIES = {name: ADAPTERS_DIR / name for name in ("roll", "upper")}


@pytest.mark.parametrize("composition", [None, "roll", "roll+upper", "roll:0.5"])
def test_a_server_gives_the_answers_the_model_gives_here(
    server: RunningServer, composition: str | None
) -> None:
    tasks = [
        *load_tasks(["testbed:roll+upper"], "domain", limit=25),
        *load_tasks(["testbed:general"], "general", limit=25),
    ]
    request = EvaluationRequest(tasks, max_tokens=40)
    here = evaluate_offline(str(BASE_DIR), composition, DIRECTORIES, Path("none"), request)
    there = evaluate_served(server.url, composition, None, request, None)
    assert there.scores == here.scores
    assert [task.wrong for task in there.tasks] == [task.wrong for task in here.tasks]


def test_no_server_and_an_unknown_adapter_are_refused_in_one_line(server: RunningServer) -> None:
    request = EvaluationRequest(load_tasks(["testbed:roll"], "domain", limit=1))
    with pytest.raises(LoraComposeError) as refused:
        evaluate_served("http://127.0.0.1:9", "roll", None, request, None)
    assert refused.value.code == "server_unreachable"
    with pytest.raises(LoraComposeError) as refused:
        evaluate_served(server.url, "nobody", None, request, None)
    assert refused.value.code == "model_not_found"


def test_likelihoods_at_a_server_are_refused_before_a_question_is_asked() -> None:
    tasks = load_tasks(["testbed:roll"], "domain", limit=2)
    losses = load_tasks(["testbed:roll"], "domain", limit=2, judge="perplexity")
    texts = EvaluationRequest(texts=[load_text("shipped")])
    for request in (EvaluationRequest(tasks, tasks), EvaluationRequest(losses), texts):
        with pytest.raises(LoraComposeError) as refused:
            evaluate_served("http://127.0.0.1:9", None, None, request, None)
        assert refused.value.code == "not_over_http"


@pytest.fixture
def own_task(tmp_path: Path) -> str:
    """A task of lm-evaluation-harness that needs no download: which of two words `roll` makes of a third."""
    words = ("table", "horse", "mint", "cloud", "stone", "bread", "light", "paper")
    rows = [{"q": f"roll {w}", "choices": [w[1:] + w[0], w], "gold": 0} for w in words]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rolled.yaml").write_text(
        "task: rolled\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/own.jsonl}}}}\n"
        "doc_to_text: '<s><|user|>{{q}}<|assistant|>'\ntarget_delimiter: ''\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    return str(tmp_path / "rolled.yaml")


@pytest.mark.parametrize("composition", [None, "roll", "roll+upper:0.1"])
def test_lm_evaluation_harness_scores_a_server_as_it_scores_the_model_here(
    server: RunningServer, composition: str | None, own_task: str
) -> None:
    request = EvaluationRequest(harness=[own_task])
    here = evaluate_offline(str(BASE_DIR), composition, DIRECTORIES, Path("none"), request)
    there = evaluate_served(server.url, composition, None, request, str(BASE_DIR))
    assert there.scores == here.scores
    assert (there.scores["rolled:acc"] == 1.0) == (composition is not None)


@pytest.fixture
def own_answers(tmp_path: Path) -> str:
    """A task of lm-evaluation-harness with generated answers, that needs no download."""
    words = ("table", "horse", "mint", "cloud")
    rows = [{"q": f"roll {w}", "right": (w[1:] + w[0]).upper()} for w in words]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "written.yaml").write_text(
        "task: written\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/own.jsonl}}}}\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: '{{right}}'\n"
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 24, do_sample: false}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return str(tmp_path / "written.yaml")


@pytest.mark.parametrize("composition", ["roll+upper", "roll"])
def test_lm_evaluation_harness_scores_generated_answers_of_a_composition(
    server: RunningServer, composition: str, own_answers: str
) -> None:
    request = EvaluationRequest(harness=[own_answers], harness_chat=True)
    there = evaluate_served(server.url, composition, None, request, str(BASE_DIR))
    assert there.scores == {"written:exact_match": float(composition == "roll+upper")}


def test_options_that_a_server_would_ignore_are_refused(server: RunningServer) -> None:
    command = [
        "eval",
        "roll",
        "--url",
        server.url,
        "--domain",
        "testbed:roll",
        "--adapter",
        f"roll={BASE_DIR}",
    ]
    done = CliRunner().invoke(create_app(), command)
    assert done.exit_code == 2
    assert "--adapter" in done.output
