"""Only the key that made a stored response may read, continue or cancel it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from lora_compose.adapters.errors import NotFound
from lora_compose.server.generation.stored_responses import own_response, require_owner
from tests.server.app_without_engine import (
    OPERATOR_KEY,
    AppWithoutEngine,
    StandIn,
    app_without_engine,
    register_shipped,
)
from tests.server.test_refusals import assert_refused


@dataclass
class Store:
    """A stand-in for vLLM's app that stores responses. Cancelling ends the work in the background."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    working: dict[str, asyncio.Event] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/v1/responses":
            body = await request.json()
            name = body["request_id"]
            self.stored[name] = {"id": name, "model": body["model"], "status": "queued"}
            if body.get("background"):
                self.working[name] = asyncio.Event()
        else:
            name = scope["path"].split("/")[3]
            if scope["path"].endswith("/cancel"):
                self.working[name].set()
        await JSONResponse(self.stored[name])(scope, receive, send)


@dataclass
class StoringStandIn(StandIn):
    stores_responses: bool = True

    async def background_ended(self, response_id: str) -> None:
        working = self.app.working.get(response_id)  # type: ignore[attr-defined]
        if working is not None:
            await working.wait()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    home, engine = tmp_path_factory.mktemp("store"), StoringStandIn(app=Store())
    with app_without_engine(home, api_keys=[OPERATOR_KEY], engine=engine) as made:
        with made.client(OPERATOR_KEY) as http:
            register_shipped(http, ["roll", "upper"])
        yield made


def ask(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/responses", json={"model": "roll", "input": "x"} | body)


def test_no_other_key_reads_continues_or_cancels_it(app: AppWithoutEngine) -> None:
    with app.client(app.create_key("one"), admin=False) as one, app.client(app.create_key("two")) as two:
        made = ask(one).json()["id"]
        assert one.get(f"/v1/responses/{made}").json()["model"] == "roll@1"
        assert one.head(f"/v1/responses/{made}").status_code == 200
        assert ask(one, previous_response_id=made).status_code == 200
        with app.client(OPERATOR_KEY) as operator:
            for http in (two, operator):
                assert_refused(http.get(f"/v1/responses/{made}"), 404, "response_not_found")
                assert_refused(http.post(f"/v1/responses/{made}/cancel"), 404, "response_not_found")
                assert_refused(ask(http, previous_response_id=made), 404, "response_not_found")


def test_a_client_cannot_choose_the_id(app: AppWithoutEngine) -> None:
    with app.client(app.create_key("three")) as three, app.client(app.create_key("four")) as four:
        made = ask(three).json()["id"]
        assert ask(four, request_id=made).json()["id"] != made
        assert three.get(f"/v1/responses/{made}").json()["model"] == "roll@1"


def test_the_adapters_are_held_until_the_work_in_the_background_ends(app: AppWithoutEngine) -> None:
    with app.client(app.create_key("five", role="admin")) as http:
        made = ask(http, model="upper", background=True).json()["id"]
        assert http.get("/load").json() == {"server_load": 1}
        assert http.post(f"/v1/responses/{made}/cancel").status_code == 200
        assert http.get("/load").json() == {"server_load": 0}


@pytest.mark.parametrize("name", ["resp_x", "resp_", "x", "é", "resp_" + "0" * 64, "%00"])
def test_what_no_key_made_is_not_found(app: AppWithoutEngine, name: str) -> None:
    with app.client(OPERATOR_KEY) as http:
        assert_refused(http.get(f"/v1/responses/{name}"), 404, "response_not_found")


def test_a_name_that_is_half_a_surrogate_is_not_found() -> None:
    with pytest.raises(NotFound):
        own_response({"previous_response_id": "\ud800"}, "key")
    require_owner(own_response({}, "key")["request_id"], "key")


def test_a_server_without_a_store_says_how_to_get_one(plain_http: httpx.Client) -> None:
    reply = plain_http.get("/v1/responses/resp_x")
    assert_refused(reply, 404, "response_not_found")
    assert "VLLM_ENABLE_RESPONSES_API_STORE" in reply.json()["error"]["message"]
