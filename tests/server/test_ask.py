import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

from adapters.composition_grammar import parse
from adapters.console import create_app
from adapters.errors import InvalidRequest, LoraComposeError
from server.ask import Question, ask, composition_text, open_client
from tests.adapters.http_server import closed_url, serving

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def stream(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The user's words back, one a chunk, as OpenAI streams."""
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    for word in body["messages"][-1]["content"].split():
        yield {**chunk, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    if body["messages"][-1]["content"].endswith("break"):
        yield {"error": {"message": "The engine died.", "type": "server_error", "code": "engine_dead"}}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {**chunk, "choices": [], "usage": USAGE}


async def chat(request: Request) -> Response:
    body = await request.json()
    if body["model"] == "nope":
        error = {
            "message": "There is no adapter 'nope'.",
            "type": "x",
            "param": "model",
            "code": "model_not_found",
        }
        return JSONResponse({"error": error}, 404)
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in stream(body)]
    return Response("".join([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


def models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "base", "object": "model"}, {"id": "sql"}]})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)]
    with serving(Starlette(routes=routes)) as at:
        yield at


def test_pieces_arrive_as_they_come_and_make_up_the_answer(url: str) -> None:
    pieces: list[str] = []
    with open_client(url, None) as client:
        answer = ask(client, Question("a bc d", "sql:0.5"), pieces.append)
    assert pieces == ["a", "bc", "d"]
    assert (answer.text, answer.model, answer.finish_reason) == ("abcd", "sql:0.5", "stop")
    assert answer.usage == USAGE
    assert answer.time_to_first_token is not None
    assert 0 < answer.time_to_first_token <= answer.total_seconds


def test_without_adapters_the_base_is_asked(url: str) -> None:
    with open_client(url, None) as client:
        assert ask(client, Question("hi")).model == "base"


@pytest.mark.parametrize(
    ("model", "prompt", "code"), [("nope", "hi", "model_not_found"), ("sql", "a break", "engine_dead")]
)
def test_an_error_is_raised_with_the_servers_code_also_in_the_stream(
    url: str, model: str, prompt: str, code: str
) -> None:
    with open_client(url, None) as client, pytest.raises(LoraComposeError) as refusal:
        ask(client, Question(prompt, model))
    assert refusal.value.code == code


def test_no_server_says_how_to_start_one() -> None:
    with open_client(closed_url(), None) as client, pytest.raises(LoraComposeError, match="serve") as refusal:
        ask(client, Question("hi", "sql"))
    assert refusal.value.code == "server_unreachable"


def test_json_is_one_object_and_plain_output_is_the_answer_alone(url: str) -> None:
    arguments = ["ask", "a b", "--url", url, "--adapters", "sql+polite", "--method", "svd", "--rank", "4"]
    answer = json.loads(CliRunner().invoke(create_app(), [*arguments, "--json"]).stdout)
    assert answer["model"] == "svd(polite+sql,rank=4)"
    assert answer["text"] == "ab"
    assert CliRunner().invoke(create_app(), arguments).stdout == "ab\n"


def test_a_method_is_put_round_the_adapters() -> None:
    text = composition_text("sql:0.7+polite@2", "ties", rank=8, density=0.3)
    assert parse(text) == parse("ties(polite@2+sql:0.7,density=0.3,rank=8)")


@pytest.mark.parametrize(
    ("adapters", "method", "rank", "code"),
    [
        ("svd(a+b)", "svd", None, "invalid_composition"),
        ("a+b", None, 8, "missing_method"),
        ("a+b", "blend", None, "unknown_method"),
        ("a+b", "ties", None, "missing_density"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    adapters: str, method: str | None, rank: int | None, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        composition_text(adapters, method, rank)
    assert refusal.value.code == code
