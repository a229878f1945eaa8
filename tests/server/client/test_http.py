import io
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.http import Client
from tests.adapters.http_server import closed_url, serving


async def echo(request: Request) -> JSONResponse:
    """Returns the request as JSON."""
    async with request.form() as form:
        fields = {name: part for name, part in form.items() if isinstance(part, str)}
        files = {
            name: (await part.read()).decode() for name, part in form.items() if not isinstance(part, str)
        }
    path, key = request.scope["raw_path"].decode(), request.headers.get("authorization")
    return JSONResponse({"fields": fields, "files": files, "path": path, "key": key})


ANSWERS: dict[str, Response] = {
    "refused": JSONResponse(
        {"error": {"message": "No such adapter.", "type": "x", "param": "name", "code": "model_not_found"}},
        404,
    ),
    "rol": JSONResponse(
        {"error": {"message": "There is no adapter 'rol'.", "code": "model_not_found", "param": "model"}}, 404
    ),
    "elsewhere": PlainTextResponse("Bad gateway", 502),
    "page": PlainTextResponse("<html>", 200),
    "array": JSONResponse([1, 2]),
    "moved": RedirectResponse("/v1/adapters"),
    "empty-error": JSONResponse({"error": {}}, 500),
}


async def answer(request: Request) -> Response:
    named = ANSWERS.get(request.path_params["reference"])
    return await echo(request) if named is None else named


async def listing(_: Request) -> Response:
    return JSONResponse({"data": [{"name": "roll"}, {"name": "upper"}]})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = Starlette(
        routes=[
            Route("/v1/adapters", echo, methods=["POST"]),
            Route("/v1/adapters", listing, methods=["GET"]),
            Route("/v1/adapters/{reference:path}", answer, methods=["GET"]),
        ]
    )
    with serving(app) as at:
        yield at


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, "secret") as made:
        yield made


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("refused", "model_not_found"),
        ("elsewhere", "http_502"),
        ("page", "not_a_server"),
        ("array", "not_a_server"),
        ("moved", "http_307"),
        ("empty-error", "http_500"),
    ],
)
def test_an_answer_that_is_no_adapter_is_raised_with_a_code(
    client: Client, reference: str, code: str
) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        client.adapter(reference)
    assert refusal.value.code == code


def test_a_refusal_carries_the_servers_message_and_param(client: Client) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        client.adapter("refused")
    assert (refusal.value.message, refusal.value.param) == ("No such adapter.", "name")


def test_a_similar_name_is_suggested_and_the_url_may_end_as_for_openai(url: str) -> None:
    for written in (url, f"{url}/v1", f"{url}/v1/"):
        with Client(written) as client, pytest.raises(LoraComposeError) as refusal:
            client.adapter("rol")
        assert refusal.value.message == "There is no adapter 'rol'. Did you mean 'roll'?"


def test_an_upload_sends_fields_and_both_files_with_the_key(client: Client) -> None:
    files = {"adapter_config.json": io.BytesIO(b"{}"), "adapter_model.safetensors": io.BytesIO(b"weights")}
    arrived = client.upload({"name": "sql", "alias": "prod"}, files)
    assert arrived["fields"] == {"name": "sql", "alias": "prod"}
    assert arrived["files"] == {"adapter_config.json": "{}", "adapter_model.safetensors": "weights"}
    assert arrived["key"] == "Bearer secret"


@pytest.mark.parametrize(
    ("reference", "path"),
    [("sql@3", "/v1/adapters/sql@3"), ("a/../b?c#d", "/v1/adapters/a%2F..%2Fb%3Fc%23d")],
)
def test_a_reference_stays_one_segment_of_the_path(client: Client, reference: str, path: str) -> None:
    assert client.adapter(reference)["path"] == path


def test_nothing_listening_says_how_to_start_a_server() -> None:
    with Client(closed_url()) as client:
        assert not client.is_ready()
        with pytest.raises(LoraComposeError, match="lora-compose serve") as refusal:
            client.adapters()
    assert refusal.value.code == "server_unreachable"
