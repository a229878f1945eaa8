"""`/api/chat` and `/api/generate` speak with clients of Ollama."""

import json
from typing import Any

import httpx
import pytest

from tests.server.translations.vllm_stand_in import VllmStandIn

HELLO = {"messages": [{"role": "user", "content": "roll"}]}
COUNTS = {"prompt_eval_count": 2, "eval_count": 4}


def told(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    reply = client.post(path, json={"model": "roll", "stream": False, **body})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json"), reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def lines(client: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    reply = client.post(path, json={"model": "roll", **body})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson"), reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def test_a_chat_is_answered(client: httpx.Client) -> None:
    answer = told(client, "/api/chat", **HELLO)
    assert answer["message"] == {"role": "assistant", "content": "abl"}
    assert (answer["model"], answer["done"], answer["done_reason"]) == ("roll@1", True, "stop")
    assert {name: answer[name] for name in COUNTS} == COUNTS
    assert answer["created_at"].endswith("Z")
    assert answer["total_duration"] > 0


def test_a_prompt_is_answered(client: httpx.Client, vllm: VllmStandIn) -> None:
    assert told(client, "/api/generate", prompt="roll", system="Be short.")["response"] == "abl"
    path, body = vllm.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "roll"},
    ]


def test_a_raw_prompt_has_no_template(client: httpx.Client, vllm: VllmStandIn) -> None:
    assert told(client, "/api/generate", prompt="roll", raw=True)["response"] == "abl"
    assert vllm.asked[-1][0] == "/v1/completions"
    text = lines(client, "/api/generate", prompt="roll", raw=True)
    assert [one["response"] for one in text] == ["a", "bl", ""]


def test_a_stream_is_the_default_and_ends_with_the_counts(client: httpx.Client) -> None:
    chunks = lines(client, "/api/chat", **HELLO)
    assert [chunk["message"]["content"] for chunk in chunks] == ["ab", "l", ""]
    assert [chunk["done"] for chunk in chunks] == [False, False, True]
    assert {name: chunks[-1][name] for name in COUNTS} == COUNTS
    assert [chunk["response"] for chunk in lines(client, "/api/generate", prompt="roll")] == ["ab", "l", ""]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("roll:latest", "roll@1"),
        ("testbed-base:latest", "testbed-base"),
        ("roll:0.5+upper", "roll@1:0.5+upper@1"),
        ("roll@1", "roll@1"),
    ],
)
def test_a_model_may_have_ollama_s_tag(
    client: httpx.Client, vllm: VllmStandIn, model: str, name: str
) -> None:
    told(client, "/api/chat", **HELLO, model=model)
    assert vllm.asked[-1][1]["model"] == name


@pytest.mark.parametrize(
    ("path", "empty"), [("/api/generate", {"response": ""}), ("/api/chat", {"message": {}})]
)
def test_a_request_without_a_prompt_loads_the_model(
    client: httpx.Client, vllm: VllmStandIn, path: str, empty: dict[str, Any]
) -> None:
    reply = client.post(path, json={"model": "upper:latest", "keep_alive": "5m"})
    answer = reply.json()
    assert (answer["done_reason"], answer["model"]) == ("load", "upper")
    assert empty.keys() <= answer.keys()
    assert vllm.asked == [("/tokenize", {"model": "upper@1", "prompt": ""})]
    loaded = [model["model"] for model in client.get("/api/ps").json()["models"]]
    assert {"testbed-base:latest", "upper@1:latest"} <= set(loaded)


def test_what_curl_sends_is_read_but_not_from_a_page_of_another_origin(client: httpx.Client) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    content = json.dumps({"model": "roll", "prompt": "roll", "stream": False})
    assert client.post("/api/generate", content=content, headers=form).status_code == 200
    page = form | {"origin": "http://evil.example"}
    reply = client.post("/api/generate", content=content, headers=page)
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type")
    assert client.post("/v1/completions", content=content, headers=form).status_code == 415


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/api/chat", HELLO | {"model": "nosuch"}, "model_not_found", "model"),
        ("/api/chat", HELLO | {"model": None}, "invalid_model", "model"),
        ("/api/chat", HELLO | {"adapter": "roll"}, "unknown_field", "adapter"),
        ("/api/chat", HELLO | {"options": {"adapter": "roll"}}, "unknown_field", "options.adapter"),
        ("/api/chat", HELLO | {"options": {"mirostat": 2}}, "invalid_request", "options.mirostat"),
        ("/api/chat", HELLO | {"options": {"repeat_penalty": 1.1, "repeat_last_n": 64}}, "invalid_request",
         "options.repeat_last_n"),
        ("/api/chat", HELLO | {"think": True}, "invalid_request", "think"),
        ("/api/chat", HELLO | {"tools": [{"type": "function"}]}, "invalid_request", "tools"),
        ("/api/chat", HELLO | {"format": "yaml"}, "invalid_request", "format"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["YQ=="]}]}, "invalid_request",
         "messages[0].images"),
        ("/api/generate", {"prompt": "x", "images": ["YQ=="]}, "invalid_request", "images"),
        ("/api/generate", {"prompt": "x", "context": [1]}, "invalid_request", "context"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "invalid_request", "suffix"),
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "invalid_request", "template"),
        ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}, "invalid_request", "system"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_ollama_s_shape(
    client: httpx.Client, vllm: VllmStandIn, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    reply = client.post(path, json={"model": "roll", **body})
    assert 400 <= reply.status_code < 500
    assert (reply.json()["code"], reply.json()["param"]) == (code, param)
    assert isinstance(reply.json()["error"], str)
    assert vllm.asked == []


def test_an_error_in_a_stream_is_the_last_line(client: httpx.Client, vllm: VllmStandIn) -> None:
    vllm.fails_at = 2
    chunks = lines(client, "/api/chat", **HELLO)
    assert [chunk.get("done") for chunk in chunks] == [False, None]
    assert chunks[-1]["code"] == "internal_error"
    assert isinstance(chunks[-1]["error"], str)


def test_tags_names_what_can_be_asked(client: httpx.Client) -> None:
    models = client.get("/api/tags").json()["models"]
    assert [model["model"] for model in models] == ["testbed-base:latest", "roll:latest", "upper:latest"]
    assert len(models[1]["digest"]) == 64
    for model in models:
        assert told(client, "/api/chat", **HELLO, model=model["model"])["done"]


def test_show_has_the_canonical_name(client: httpx.Client) -> None:
    shown = client.post("/api/show", json={"model": "roll:latest"}).json()
    assert shown["model_info"]["lora_compose.model"] == "roll@1"
    assert shown["capabilities"] == ["completion"]
    assert client.post("/api/show", json={"model": "nosuch"}).status_code == 404
    assert client.post("/api/show", json={}).status_code == 404


def test_version_is_three_numbers(client: httpx.Client) -> None:
    assert client.get("/api/version").json()["version"].count(".") == 2
