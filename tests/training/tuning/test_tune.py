"""Tuning over HTTP, against a server that answers right if the weights are right."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner, Result

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.chat import ChatClient
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.tune import tune, with_versions
from tests.adapters.http_server import serving
from tests.adapters.written_adapters import difference, read_peft, weighted_sum, write_peft

QUESTIONS = tuple(Question([{"role": "user", "content": f"say {i}"}], str(i)) for i in range(40))
TASK = Task("rows", "domain", QUESTIONS)


async def answer(request: Request) -> JSONResponse:
    """Answers right at a:0.5+b, and at weight 1 only for even numbers."""
    body = await request.json()
    if "c" in body["model"]:
        return JSONResponse({"error": {"message": "No c.", "code": "model_not_found", "param": "model"}}, 404)
    asked = body["messages"][-1]["content"].removeprefix("say ")
    weights = {member.name: member.weight for member in parse(body["model"]).members}
    right = weights == {"a": 0.5, "b": 1.0} or int(asked) % 2 == 0
    return JSONResponse({"choices": [{"message": {"content": asked if right else "?"}}]})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])) as at:
        yield at


@pytest.fixture
def client(url: str) -> Iterator[ChatClient]:
    with ChatClient(url) as made:
        yield made


def test_the_weights_that_answer_best_are_found_and_hold_on_the_other_half(client: ChatClient) -> None:
    tuned = tune(parse("a+b"), TASK, client, seed=0)
    assert tuned.composition.canonical == "a:0.5+b"
    assert tuned.tuned_after == tuned.held_out_after == 1.0
    assert (tuned.tuned_before + tuned.held_out_before) / 2 == 0.5
    assert tuned.tuned_rows == tuned.held_out_rows == 20
    assert tuned.pays
    assert tuned.is_sure
    assert tuned.held_out_gain[0] <= tuned.held_out_after - tuned.held_out_before <= tuned.held_out_gain[1]


@pytest.mark.parametrize("composition", ["a", "svd(a+b)"])
def test_only_stacks_of_several_are_tuned(client: ChatClient, composition: str) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        tune(parse(composition), TASK, client, seed=0)
    assert refusal.value.code == "not_a_stack"


def test_what_the_server_refuses_ends_the_search_with_its_words(client: ChatClient) -> None:
    with pytest.raises(LoraComposeError, match=r"No c\.") as refusal:
        tune(parse("a+c"), TASK, client, seed=0)
    assert refusal.value.code == "model_not_found"


def test_members_get_the_versions_that_are_exported() -> None:
    ids = {"sql@prod": "sql@3", "polite": "polite@1", "plain": "plain"}
    assert with_versions(parse("sql@prod:0.5+polite+plain"), ids).canonical == "plain+polite@1+sql@3:0.5"


def weights(*arguments: object) -> Result:
    return CliRunner().invoke(create_app(), ["train", "weights", *map(str, arguments)])


@pytest.fixture
def given(tmp_path: Path) -> list[Any]:
    rows = tmp_path / "rows.jsonl"
    lines = [{"prompt": q.prompt[0]["content"], "completion": q.answer} for q in QUESTIONS]
    rows.write_text("\n".join(map(json.dumps, lines)))
    write_peft(tmp_path / "a", seed=1)
    write_peft(tmp_path / "b", seed=2, rank=2)
    return ["--adapter", f"a={tmp_path / 'a'}", "--adapter", f"b={tmp_path / 'b'}", "--rows", rows]


def test_the_adapter_is_written_at_the_weights_found(given: list[Any], url: str, tmp_path: Path) -> None:
    result = weights("b+a", tmp_path / "out", *given, "--url", url, "--json")
    facts = json.loads(result.stdout)
    assert facts["composition"] == facts["tuned"]["composition"] == "a:0.5+b"
    a, b = write_peft(tmp_path / "same-a", seed=1), write_peft(tmp_path / "same-b", seed=2, rank=2)
    assert difference(read_peft(tmp_path / "out"), weighted_sum((a.deltas, 0.5), (b.deltas, 1.0))) < 1e-4


def test_a_search_keeps_time_for_the_held_out_half() -> None:
    class Slow:
        def answer(self, model: str, messages: Sequence[Message], max_tokens: int) -> str:
            sleep(0.2)
            return "?"

    started = monotonic()
    tuned = tune(parse("a+b"), TASK, Slow(), seed=0, seconds=4)
    assert monotonic() - started < 4.5
    assert 2 < tuned.trials < 8  # 20 rows, 16 at a time: 0.4 s for each half


def test_members_of_other_bases_are_named(given: list[Any], url: str, tmp_path: Path) -> None:
    for name, base in (("a", "/models/one"), ("b", "two")):
        config = tmp_path / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    result = weights("a+b", tmp_path / "out", *given, "--url", url, "--json")
    assert [warning["code"] for warning in json.loads(result.stdout)["warnings"]] == ["different_bases"]
    assert "a was trained on the base 'one', and b on 'two'" in result.stderr


def test_both_halves_are_shown(given: list[Any], url: str, tmp_path: Path) -> None:
    shown = weights("a+b", tmp_path / "out", *given, "--url", url).stdout
    assert "held out (20)" in shown
    assert "Wrote a:0.5+b" in shown
