"""What surrounds every route: CORS, the root path, the user's middleware and the log of requests."""

import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_compose.server.http.cors import EXPOSED_HEADERS
from lora_compose.server.options.http_options import HttpOptions
from tests.server.app_without_engine import OPERATOR_KEY, AppWithoutEngine, app_without_engine

PAGE = "http://localhost:3000"
CHAT = {"model": "testbed-base", "messages": []}


async def stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Middleware as a function: it marks responses, and fails if the request asks for it."""
    if "x-fail" in request.headers:
        raise RuntimeError("a secret of the middleware")
    response = await call_next(request)
    response.headers["x-stamp"] = "function"
    return response


class Refuse:
    """Middleware as a class: it answers itself if the request has the header x-refuse."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuses = any(name == b"x-refuse" for name, _ in scope["headers"])
        await (Response(status_code=418) if refuses else self._app)(scope, receive, send)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    """Keys, and one page that may use the server."""
    http = HttpOptions(
        allowed_origins=(PAGE,),
        root_path="/llm",
        middleware=(f"{__name__}.stamp", f"{__name__}.Refuse"),
        disable_access_log_for_endpoints=("/v1/models",),
    )
    home = tmp_path_factory.mktemp("guarded")
    with app_without_engine(home, api_keys=[OPERATOR_KEY], http=http, other_names=("second",)) as app:
        yield app


def preflight(app: AppWithoutEngine, path: str, method: str, origin: str = PAGE) -> httpx.Response:
    asked = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
    with app.client() as client:
        return client.options(path, headers={"origin": origin, **asked})


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/chat/completions", "POST"),
        ("/v1/models", "GET"),
        ("/v1/adapters/x", "DELETE"),
        ("/v1/fusion", "PUT"),
        ("/metrics", "GET"),
        ("/livez", "GET"),
        ("/no/such/path", "GET"),
    ],
)
def test_a_browser_may_ask_first_on_every_route_without_a_key(
    guarded: AppWithoutEngine, path: str, method: str
) -> None:
    asked = preflight(guarded, path, method)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert method in asked.headers["access-control-allow-methods"].split(", ")
    assert asked.headers["access-control-allow-headers"] == "authorization"


def test_another_page_is_refused_with_our_error(guarded: AppWithoutEngine) -> None:
    asked = preflight(guarded, "/v1/models", "GET", "http://evil.example")
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    assert asked.json()["error"]["message"] == "Disallowed CORS origin."


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/v1/models", OPERATOR_KEY, 200),
        ("POST", "/v1/chat/completions", OPERATOR_KEY, 200),
        ("GET", "/v1/models", "wrong", 401),
        ("GET", "/v1/models/nope", OPERATOR_KEY, 404),
        ("GET", "/nope", OPERATOR_KEY, 404),
        ("POST", "/v1/models", OPERATOR_KEY, 405),
        ("GET", "/livez", "wrong", 200),
    ],
)
def test_every_response_may_be_read_by_the_page(
    guarded: AppWithoutEngine, method: str, path: str, key: str, status: int
) -> None:
    with guarded.client(key) as client:
        answered = client.request(method, path, headers={"origin": PAGE}, json=CHAT)
    assert answered.status_code == status
    assert answered.headers["access-control-allow-origin"] == PAGE
    assert answered.headers["access-control-expose-headers"] == ", ".join(EXPOSED_HEADERS)
    assert "origin" in answered.headers["vary"].lower()


def test_a_browser_may_ask_for_a_private_address(guarded: AppWithoutEngine) -> None:
    asked = {"access-control-request-method": "GET", "access-control-request-private-network": "true"}
    with guarded.client() as client:
        answered = client.options("/v1/models", headers={"origin": PAGE, **asked})
    assert (answered.status_code, answered.headers["access-control-allow-private-network"]) == (200, "true")


def test_without_the_option_no_page_may_use_the_server(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        answered = client.get("/v1/models", headers={"origin": PAGE})
        assert "access-control-allow-origin" not in answered.headers
        assert preflight(app, "/v1/models", "GET").status_code == 405


def test_all_pages_and_cookies(tmp_path: Path) -> None:
    http = HttpOptions(allowed_origins=("*",), allow_credentials=True, allowed_methods=("get",))
    with app_without_engine(tmp_path, http=http) as app, app.client() as client:
        answered = client.get("/v1/models", headers={"origin": PAGE})
        assert answered.headers["access-control-allow-origin"] == PAGE
        assert answered.headers["access-control-allow-credentials"] == "true"
        assert preflight(app, "/v1/models", "GET").status_code == 200
        assert preflight(app, "/v1/models", "DELETE").status_code == 400


@pytest.mark.parametrize("path", ["/llm/v1/models", "/v1/models", "/llm/livez", "/livez"])
def test_the_root_path_may_be_there_or_not(guarded: AppWithoutEngine, path: str) -> None:
    with guarded.client(OPERATOR_KEY) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/llm", 404), ("/llmv1/models", 404), ("/llm/llm/v1/models", 404)]
)
def test_it_is_removed_once_and_only_as_a_whole(guarded: AppWithoutEngine, path: str, status: int) -> None:
    with guarded.client(OPERATOR_KEY) as client:
        assert client.get(path).status_code == status


def test_a_key_is_checked_for_the_path_that_is_routed(guarded: AppWithoutEngine) -> None:
    secret = guarded.create_key("reader")
    with guarded.client(secret) as client:
        assert client.get("/llm/v1/models").status_code == 200
        assert client.delete("/llm/v1/fusion").status_code == 403
        assert client.get("/llm/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401


def test_the_users_middleware_is_around_every_route(guarded: AppWithoutEngine) -> None:
    with guarded.client("wrong") as client:
        assert client.get("/v1/models").headers["x-stamp"] == "function"
        assert client.get("/livez").headers["x-stamp"] == "function"
        assert client.get("/livez", headers={"x-refuse": "1"}).status_code == 418


def test_middleware_that_fails_is_answered_with_our_error(guarded: AppWithoutEngine) -> None:
    with guarded.client(OPERATOR_KEY) as client:
        failed = client.get("/v1/models", headers={"x-fail": "1", "origin": PAGE})
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert failed.headers["access-control-allow-origin"] == PAGE
    assert "secret" not in failed.text


def test_paths_can_be_left_out_of_the_log(
    guarded: AppWithoutEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), guarded.client("wrong") as client:
        client.get("/v1/models")
        client.get("/llm/v1/models")
        client.get("/v1/adapters")
    logged = [record for record in caplog.records if record.name.endswith("access_log")]
    assert len(logged) == 1


def test_every_name_of_the_base_is_the_base(guarded: AppWithoutEngine) -> None:
    with guarded.client(OPERATOR_KEY) as client:
        cards = client.get("/v1/models").json()["data"]
        assert [card["id"] for card in cards] == ["testbed-base", "second"]
        assert client.get("/v1/models/second").json()["id"] == "second"
        for model in ("second", "testbed-base", None):
            answered = client.post("/v1/chat/completions", json={**CHAT, "model": model})
            assert (answered.status_code, answered.json()["model"]) == (200, "testbed-base")
            assert answered.headers["x-lora-composition"] == "testbed-base"


def test_a_further_name_may_stand_before_a_composition(guarded: AppWithoutEngine) -> None:
    with guarded.client(OPERATOR_KEY) as client:
        assert client.post("/v1/chat/completions", json={**CHAT, "model": "second:no"}).status_code == 404
        assert client.post("/v1/chat/completions", json={**CHAT, "model": "secondary"}).status_code == 404
        taken = client.post("/v1/adapters", json={"name": "second", "path": "/x"})
        fields = {"model": "second", "adapters": [{"name": "no"}], "messages": []}
        assert client.post("/v1/chat/completions", json=fields).json()["error"]["code"] == "model_not_found"
    assert taken.status_code in {403, 409}


def test_the_documentation_can_be_left_out(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, http=HttpOptions(disable_fastapi_docs=True)) as app:
        hidden = httpx.get(f"{app.url}/openapi.json")
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "not_found")


def test_limits_of_the_head(tmp_path: Path) -> None:
    http = HttpOptions(h11_max_incomplete_event_size=2048, h11_max_header_count=10)
    with app_without_engine(tmp_path, http=http) as app, app.client() as client:
        assert client.get("/livez", headers={"x-large": "x" * 1500}).status_code == 200
        large = client.get("/livez", headers={"x-large": "x" * 3000})
        many = client.get("/livez", headers={f"x-{i}": "1" for i in range(11)})
    assert [(one.status_code, one.json()["error"]["code"]) for one in (large, many)] == [
        (431, "headers_too_large")
    ] * 2


def test_an_idle_connection_is_closed_after_the_time_that_was_given(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, http=HttpOptions(keep_alive_seconds=1)) as app:
        port = httpx.URL(app.url).port
        with socket.create_connection(("127.0.0.1", port or 0), timeout=30) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            started = time.monotonic()
            received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 200")
    assert 0.9 < time.monotonic() - started < 4.5
