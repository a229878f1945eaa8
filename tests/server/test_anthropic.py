"""Anthropic's Messages API: vLLM's own handlers behind the one pipeline, and errors in Anthropic's shape."""

import json
from typing import Any

import httpx
import pytest

from tests.server.app_without_engine import OPERATOR_KEY, app_without_engine

MESSAGES = [{"role": "user", "content": "roll table"}]
BODY = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}


def events(text: str) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]


@pytest.mark.parametrize("model", ["testbed-base", "roll", "roll+upper", "svd(roll+upper,rank=8)"])
def test_the_answer_and_its_stream_are_those_of_a_chat(http: httpx.Client, model: str) -> None:
    chat = http.post("/v1/chat/completions", json=BODY | {"model": model}).json()
    whole = http.post("/v1/messages", json=BODY | {"model": model})
    streamed = http.post("/v1/messages", json=BODY | {"model": model, "stream": True})
    said = whole.json()
    assert said["content"] == [{"type": "text", "text": chat["choices"][0]["message"]["content"]}]
    assert said["model"] == whole.headers["x-lora-composition"] == chat["model"]
    assert said["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    told = events(streamed.text)
    texts = [event["delta"]["text"] for event in told if event["type"] == "content_block_delta"]
    assert "".join(texts) == said["content"][0]["text"]
    assert (told[0]["message"]["model"], told[-1]["type"]) == (said["model"], "message_stop")


def test_every_form_of_a_composition_answers(http: httpx.Client) -> None:
    body = BODY | {"model": "testbed-base", "adapters": [{"name": "roll"}, {"name": "upper", "weight": 0.9}]}
    assert http.post("/v1/messages?beta=true", json=body).json()["model"] == "roll@1+upper@1:0.9"


def test_tokens_are_counted(http: httpx.Client) -> None:
    body = {"model": "roll+upper", "messages": MESSAGES}
    counted = http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
    assert counted == len(http.post("/tokenize", json=body).json()["tokens"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "code"),
    [
        ("POST", "/v1/messages", {"model": "nobody"}, 404, "not_found_error", "model_not_found"),
        ("POST", "/v1/messages", {"model": "claude-opus-4"}, 404, "not_found_error", "model_not_found"),
        ("POST", "/v1/messages", {"model": "roll:nan"}, 400, "invalid_request_error", "invalid_weight"),
        ("POST", "/v1/messages", {"lora_request": "roll"}, 400, "invalid_request_error", "unknown_field"),
        ("POST", "/v1/messages/count_tokens", {"model": "x"}, 404, "not_found_error", "model_not_found"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error", "not_offered"),
        ("POST", "/v1/messages/", {}, 404, "not_found_error", "not_found"),
        ("GET", "/v1/messages", None, 405, "invalid_request_error", "method_not_allowed"),
    ],
)
def test_a_refusal_has_anthropic_s_shape(
    plain_http: httpx.Client, method: str, path: str, body: Any, status: int, kind: str, code: str
) -> None:
    reply = plain_http.request(method, path, json=body)
    told = reply.json()
    assert (reply.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert (told["error"]["code"], int(reply.headers["content-length"])) == (code, len(reply.content))
    assert told["error"]["message"]


def test_a_body_that_is_too_long_or_not_json_too(plain_http: httpx.Client) -> None:
    long = plain_http.post(
        "/v1/messages", content=b" " * (3 << 20), headers={"content-type": "application/json"}
    )
    assert (long.status_code, long.json()["error"]["type"]) == (413, "request_too_large")
    broken = plain_http.post("/v1/messages", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert plain_http.head("/v1/messages").status_code == 405


def test_vllm_s_refusal_has_it_too(http: httpx.Client) -> None:
    reply = http.post("/v1/messages", json=BODY | {"model": "roll", "max_tokens": -1})
    told = reply.json()
    assert (reply.status_code, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")


def test_its_key_is_in_x_api_key(tmp_path: Any) -> None:
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY]) as app:
        tenant = app.create_key("tenant", quotas={"requests_per_minute": 60})
        accepted = [
            {"x-api-key": OPERATOR_KEY},
            {"X-Api-Key": tenant},
            {"x-api-key": tenant, "authorization": f"Bearer {tenant}"},
        ]
        refused: list[Any] = [
            {},
            {"x-api-key": "wrong"},
            {"x-api-key": f"Bearer {tenant}"},
            {"x-api-key": tenant, "authorization": f"Bearer {OPERATOR_KEY}"},
            {"x-api-key": tenant, "authorization": f"Basic {tenant}"},
            [("x-api-key", tenant), ("x-api-key", tenant)],
        ]
        for path in ("/v1/messages", "/v1/completions"):
            body = {"model": "testbed-base", "messages": MESSAGES, "max_tokens": 1}
            url = app.url + path
            assert {httpx.post(url, json=body, headers=one).status_code for one in accepted} == {200}
            replies = [httpx.post(url, json=body, headers=one) for one in refused]
            assert {reply.status_code for reply in replies} == {401}
        told = httpx.post(f"{app.url}/v1/messages", json={}).json()
        assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")
        limited = [httpx.post(f"{app.url}/v1/messages", json=body, headers=accepted[1]) for _ in range(20)]
        assert limited[-1].status_code == 429
        assert limited[-1].json()["error"]["type"] == "rate_limit_error"
        assert limited[-1].headers["retry-after"]
