"""Clients can read every refusal of a translated request, and an ended stream leaves nothing behind."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.translations.events import events
from tests.server.app_without_engine import (
    OPERATOR_KEY,
    StandIn,
    app_without_engine,
    register_shipped,
)
from tests.server.translations.vllm_stand_in import VllmStandIn

PATHS = {
    "/": {"inputs": "x", "stream": True, "parameters": {"adapter_id": "roll"}},
    "/generate_stream": {"inputs": "x", "parameters": {"adapter_id": "roll"}},
    "/api/chat": {"model": "roll", "messages": [{"role": "user", "content": "x"}]},
    "/api/generate": {"model": "roll", "prompt": "x"},
}


def is_readable(path: str, told: dict[str, Any], code: str) -> bool:
    is_of_tgi = not path.startswith("/api/")
    return isinstance(told["error"], str) and told["code"] == code and ("error_type" in told) is is_of_tgi


def test_a_key_is_needed_and_its_quota_counts(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY], engine=StandIn(app=VllmStandIn())) as app:
        with app.client(OPERATOR_KEY) as operator:
            register_shipped(operator, ["roll"])
        for index, (path, body) in enumerate(PATHS.items()):
            refused = httpx.post(app.url + path, json=body)
            assert refused.status_code == 401
            assert is_readable(path, refused.json(), "invalid_api_key")
            with app.client(app.create_key(f"other{index}", adapters=("upper",)), admin=False) as client:
                hidden = client.post(path, json=body)
                assert (hidden.status_code, is_readable(path, hidden.json(), "model_not_found")) == (
                    404,
                    True,
                )
            with app.client(app.create_key(f"monitor{index}", role="monitor"), admin=False) as client:
                assert is_readable(path, client.post(path, json=body).json(), "permission_denied")
            quotas = {"requests_per_minute": 1}
            with app.client(app.create_key(f"poor{index}", quotas=quotas), admin=False) as client:
                assert client.post(path, json=body).status_code == 200
                poor = client.post(path, json=body)
                assert (poor.status_code, is_readable(path, poor.json(), "quota_exceeded")) == (429, True)


def test_adapters_of_others_are_not_listed(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY]) as app:
        with app.client(OPERATOR_KEY) as operator:
            register_shipped(operator, ["roll", "upper"])
        with app.client(app.create_key("one", adapters=("upper",)), admin=False) as client:
            assert [found["task_name"] for found in client.get("/lora-adapters").json()] == ["upper"]
            models = [found["model"] for found in client.get("/api/tags").json()["models"]]
            assert models == ["testbed-base:latest", "upper:latest"]


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_is_loading_is_told_in_the_client_s_shape(path: str) -> None:
    told = TestClient(AppSwitch()).post(path, json={})
    assert (told.status_code, is_readable(path, told.json(), "engine_loading")) == (503, True)
    assert told.headers["retry-after"]


def test_other_paths_keep_openai_s_shape(client: httpx.Client) -> None:
    for path in ("/v1/completions", "/v1/nothing"):
        assert isinstance(client.post(path, json={"model": "nosuch", "prompt": "x"}).json()["error"], dict)
    assert client.post("/api/nothing", json={}).json()["code"] == "not_found"
    pulled = client.post("/api/pull", json={"model": "roll"}).json()
    assert (pulled["code"], "POST /v1/adapters" in pulled["error"]) == ("not_offered", True)
    assert isinstance(client.put("/").json()["error"], dict)
    assert client.get("/").text.startswith("lora-compose is running")


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_ends_its_request_once(
    client: httpx.Client, vllm: VllmStandIn, path: str
) -> None:
    vllm.endless = True
    with client.stream("POST", path, json=PATHS[path]) as reply:
        pieces = reply.iter_raw()  # httpx closes the connection when nothing holds the iterator
        assert next(pieces)  # before the end, which never comes
        until(lambda: active(client) == [{"roll@1": 1}])
    until(lambda: active(client) == [] and vllm.aborted == 1)
    assert all(part["requests"] == 0 for part in client.get("/v1/residency").json()["host"]["adapters"])


def active(client: httpx.Client) -> Any:
    return client.get("/v1/residency").json()["active"]["compositions"]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60  # the machine may be busy
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_metrics_see_a_request_like_any_other(client: httpx.Client) -> None:
    body = {"inputs": "x", "parameters": {"adapter_id": "roll"}}
    client.post("/generate_stream", json=body)
    client.post("/generate", json=body | {"inputs": ""})
    text = client.get("/metrics").text
    assert 'route="/generate_stream",status="200"' in text
    assert 'code="invalid_request"' in text
    for name in ("lora_compose_time_to_first_token_seconds_count", "lora_compose_requests_total"):
        assert f'{name}{{kind="single"' in text


def test_events_may_be_cut_anywhere() -> None:
    whole = b'data: {"a": 1}\n\ndata: [DONE]\n\n'
    for cut in range(len(whole)):
        first, rest = events(whole[:cut])
        second, left = events(rest + whole[cut:])
        assert ([*first, *second], left) == ([b'{"a": 1}', b"[DONE]"], b"")
