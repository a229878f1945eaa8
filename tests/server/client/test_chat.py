import json
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.chat import ChatClient, ChatQuestion
from tests.adapters.http_server import closed_url, serving
from tests.server.client.chat_server import CHAT_APP, REFUSAL, USAGE


def page(_: Request) -> Response:
    return PlainTextResponse("<html>", media_type="text/html")


@pytest.fixture(scope="module")
def client() -> Iterator[ChatClient]:
    with serving(CHAT_APP) as url, ChatClient(url) as made:
        yield made


@pytest.fixture(scope="module")
def website() -> Iterator[ChatClient]:
    routes = [Route("/v1/chat/completions", page, methods=["POST"]), Route("/v1/models", page)]
    with serving(Starlette(routes=routes)) as url, ChatClient(url) as made:
        yield made


def test_pieces_arrive_as_they_come_and_make_up_the_answer(client: ChatClient) -> None:
    pieces: list[str] = []
    answer = client.stream(ChatQuestion("a bc d", "sql:0.5"), pieces.append)
    assert pieces == ["a", "bc", "d"]
    assert (answer.text, answer.model, answer.finish_reason) == ("abcd", "sql:0.5", "stop")
    assert answer.usage == USAGE
    assert answer.time_to_first_token is not None
    assert 0 < answer.time_to_first_token <= answer.total_seconds


def test_without_a_model_the_base_is_asked(client: ChatClient) -> None:
    assert client.stream(ChatQuestion("hi")).model == "base"


def test_a_plain_answer_is_greedy_and_its_conversation_is_sent_unchanged(client: ChatClient) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    sent = json.loads(client.answer("sql", messages, 7))
    assert sent == {"model": "sql", "messages": messages, "max_completion_tokens": 7, "temperature": 0}


@pytest.mark.parametrize(
    ("model", "prompt", "code"),
    [("nope", "hi", "model_not_found"), ("sql", "a break", "engine_dead"), ("gateway", "hi", "http_502")],
)
def test_an_error_is_raised_with_the_servers_code_also_in_the_stream(
    client: ChatClient, model: str, prompt: str, code: str
) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        client.stream(ChatQuestion(prompt, model))
    assert refusal.value.code == code


def test_a_refusal_carries_the_servers_message_and_param(client: ChatClient) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        client.answer("nope", [{"role": "user", "content": "hi"}], 7)
    assert (refusal.value.code, refusal.value.message, refusal.value.param) == (
        "model_not_found",
        REFUSAL["message"],
        "model",
    )


def test_no_server_says_how_to_start_one() -> None:
    with ChatClient(closed_url()) as client, pytest.raises(LoraComposeError, match="serve") as refusal:
        client.stream(ChatQuestion("hi", "sql"))
    assert refusal.value.code == "server_unreachable"


def test_a_web_page_is_refused_as_another_kind_of_server(website: ChatClient) -> None:
    for ask in (
        website.base_model,
        lambda: website.answer("sql", [{"role": "user", "content": "hi"}], 7),
        lambda: website.stream(ChatQuestion("hi", "sql")),
    ):
        with pytest.raises(LoraComposeError) as refusal:
            ask()
        assert refusal.value.code == "not_a_server"
