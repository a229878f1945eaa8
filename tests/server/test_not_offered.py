"""Every path of vLLM is offered or refused with what to use.

The refusal of a path that is nearly right names the right one.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import httpx
import pytest
import vllm.entrypoints
from fastapi import APIRouter
from starlette.routing import compile_path
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.speech_to_text.factories import register_speech_to_text_api_routers

from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.engine.frontend.launch import parse_vllm_args
from lora_compose.server.not_offered import instead_of
from lora_compose.server.openapi_page import every_operation
from tests.server.app_without_engine import OPERATOR_KEY, AppWithoutEngine, app_without_engine
from tests.server.test_refusals import assert_refused

OWN = {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/health", "/metrics", "/v1/models"}
"""Paths of vLLM that this server answers by itself."""


def routers_of_vllm() -> Iterator[APIRouter]:
    """The router of every module of vLLM that has routes, also of those that its app includes rarely."""
    for module in pkgutil.walk_packages(vllm.entrypoints.__path__, "vllm.entrypoints."):
        if module.name.endswith("api_router"):
            yield from (
                value
                for value in vars(importlib.import_module(module.name)).values()
                if isinstance(value, APIRouter)
            )


def paths_of_vllm() -> set[str]:
    """The paths of vLLM's app with every option, and of every router that it could include."""
    options = ["--model", str(EMBEDDED_BASE), "--enable-tokenizer-info-endpoint", "--enable-scale-out"]
    args = parse_vllm_args([*options, "--enable-fault-tolerance"])
    config = AsyncEngineArgs.from_cli_args(args).create_model_config()
    app = build_app(args, ("generate",), config)
    register_speech_to_text_api_routers(app, ("transcription", "realtime"))
    for router in routers_of_vllm():
        app.include_router(router)
    return {route.path for route in app.routes if hasattr(route, "path")}


def test_every_path_of_vllm_is_offered_or_refused() -> None:
    offered = {one.path for one in every_operation()}
    patterns = [compile_path(path)[0] for path in offered]
    paths = paths_of_vllm()
    assert {"/v1/messages", "/sleep", "/v1/audio/transcriptions", "/rerank", "/update_weights"} <= paths
    unknown = {path for path in paths if not instead_of(path) and not any(p.match(path) for p in patterns)}
    assert unknown == set()
    assert offered >= OWN


def test_no_path_is_offered_and_refused() -> None:
    assert [one.path for one in every_operation() if instead_of(one.path.replace("{id}", "x"))] == []


@pytest.mark.parametrize(
    ("method", "path", "use"),
    [
        ("POST", "/v1/audio/transcriptions", "speech"),
        ("POST", "/v1/images/generations", "makes images"),
        ("GET", "/v1/files/file-1/content", "stores no files"),
        ("POST", "/v1/batches", "by itself"),
        ("POST", "/v1/fine_tuning/jobs", "lora-compose train"),
        ("POST", "/v1/moderations", "/v1/chat/completions"),
        ("POST", "/inference/v1/generate", "token ids"),
        ("POST", "/v1/chat/completions/render", "/tokenize"),
        ("GET", "/v1/chat/completions/chatcmpl-1", "does not store chats"),
        ("POST", "/v1/messages/batches", "/v1/messages"),
        ("POST", "/v1/responses/input_tokens", "/tokenize"),
        ("GET", "/v1/responses/resp_1/input_items", "in the client"),
        ("GET", "/v2/models/roll", "/v1/models"),
        ("GET", "/redoc", "/docs"),
        ("POST", "/sleep", "/v1/residency"),
    ],
)
def test_what_is_not_offered_says_what_to_use(
    plain_http: httpx.Client, method: str, path: str, use: str
) -> None:
    reply = plain_http.request(method, path)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], reply.headers["x-should-retry"]) == (
        404,
        "not_offered",
        "false",
    )
    assert use in error["message"]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1//completions", "/v1/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/roll/chat/completions", "/v1/chat/completions"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/models/", "/v1/models"),
        ("/v1/adapters/roll/", "/v1/adapters/roll"),
        ("/v1/v1/models/org/roll", "/v1/models/org/roll"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/load_lora_adapter", "/v1/load_lora_adapter"),
        ("/healthz", "/health"),
    ],
)
def test_a_near_path_is_named(plain_http: httpx.Client, path: str, right: str) -> None:
    method = "GET" if path.startswith("/v1/models") else "POST"
    request = httpx.Request(method, plain_http.base_url, extensions={"target": path.encode()})
    reply = plain_http.send(request)
    assert_refused(reply, 404, "not_found")
    assert reply.json()["error"]["message"] == f"This path does not exist. Use {right}"


def test_a_path_far_from_all_others_points_to_the_list(plain_http: httpx.Client) -> None:
    for path in ("/nothing", "/" + "a/" * 20_000, "/%0a%0d", "/\u202e"):
        reply = plain_http.get(path)
        assert_refused(reply, 404, "not_found")
        assert reply.json()["error"]["message"].endswith("GET /docs lists the paths.")


def test_a_wrong_method_names_the_right_ones(plain_http: httpx.Client) -> None:
    reply = plain_http.put("/v1/messages/count_tokens")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["message"] == "This path supports only POST."
    assert plain_http.get("/v1/adapters/roll/pin").headers["allow"] == "DELETE, PUT"


def test_every_key_is_told_the_same_of_a_path_that_does_not_exist(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with app_without_engine(tmp_path_factory.mktemp("keys"), api_keys=[OPERATOR_KEY]) as app:
        tenant = app.create_key("tenant")
        for is_admin_port in (False, True):
            with app.client(tenant, admin=is_admin_port) as http:
                assert_refused(http.post("/v1/files"), 404, "not_offered")
                assert_refused(http.post("/v1/v1/completions"), 404, "not_found")
        _check_rights(app, tenant)


def _check_rights(app: AppWithoutEngine, tenant: str) -> None:
    """What exists stays refused as before."""
    with app.client(tenant, admin=False) as http:
        assert_refused(http.get("/v1/residency"), 404, "not_found")
    with app.client(tenant) as http:
        assert_refused(http.get("/v1/residency"), 403, "permission_denied")
        assert_refused(http.put("/v1/completions"), 405, "method_not_allowed")
    with app.client() as http:
        assert_refused(http.post("/v1/files"), 401, "invalid_api_key")


def test_the_page_of_routes_loads_nothing_from_elsewhere(plain_http: httpx.Client) -> None:
    page = plain_http.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<code>POST /v1/messages</code>" in page.text
    assert not any(word in page.text for word in ("http://", "https://", "<script", "src="))


def test_small_routes_of_vllm_answer(plain_http: httpx.Client) -> None:
    assert plain_http.get("/version").json()["version"].startswith("0.")
    assert plain_http.get("/load").json() == {"server_load": 0}
    assert [plain_http.request(method, "/ping").status_code for method in ("GET", "POST")] == [200, 200]
    refused = plain_http.get("/tokenizer_info")
    assert_refused(refused, 404, "not_offered")
    assert "--enable-tokenizer-info-endpoint" in refused.json()["error"]["message"]
