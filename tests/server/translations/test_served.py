"""On the real engine: the routes of other servers answer exactly as the OpenAI routes do."""

import json
from typing import Any

import httpx
import pytest

QUESTION = "roll table"
RAW = f"<|user|>{QUESTION}<|assistant|>"
"""The question as the chat template writes it."""
GREEDY = {"temperature": 0, "num_predict": 8}
MODELS = ("testbed-base", "roll", "roll:0.7+upper", "ties(roll+upper,density=0.5)")
TIES = {"ids": ["roll", "upper"], "weights": [1, 1], "merge_strategy": "ties", "density": 0.5}


@pytest.fixture(params=MODELS)
def expected(request: pytest.FixtureRequest, http: httpx.Client) -> tuple[str, str]:
    """(model, its answer on /v1/chat/completions)."""
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": request.param, "messages": messages, "max_tokens": 8, "temperature": 0}
    content: str = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert content
    return request.param, content


def parameters_of(model: str) -> dict[str, Any]:
    if model == "testbed-base":
        return {}
    return {"merged_adapters": TIES} if model.startswith("ties") else {"adapter_id": model}


def test_lorax_s_routes_answer_the_same(http: httpx.Client, expected: tuple[str, str]) -> None:
    model, answer = expected
    body = {"inputs": RAW, "parameters": parameters_of(model) | {"max_new_tokens": 8, "details": True}}
    whole = http.post("/generate", json=body).json()
    assert whole["generated_text"] == answer
    texts = [token["text"] for token in whole["details"]["tokens"] if not token["special"]]
    assert "".join(texts) == answer
    streamed = http.post("/generate_stream", json=body).text.split("\n\n")
    told = [json.loads(event.removeprefix("data:")) for event in streamed if event]
    assert "".join(event["token"]["text"] for event in told) == answer
    assert told[-1]["generated_text"] == answer
    assert [event["token"]["id"] for event in told] == [token["id"] for token in whole["details"]["tokens"]]
    counts = ("finish_reason", "prompt_tokens", "generated_tokens")
    assert [told[-1]["details"][name] for name in counts] == [whole["details"][name] for name in counts]


def test_ollama_s_routes_answer_the_same(http: httpx.Client, expected: tuple[str, str]) -> None:
    model, answer = expected
    chat = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "options": GREEDY}
    prompt = {"model": model, "prompt": QUESTION, "options": GREEDY}
    assert http.post("/api/chat", json=chat | {"stream": False}).json()["message"]["content"] == answer
    assert http.post("/api/generate", json=prompt | {"stream": False}).json()["response"] == answer
    raw = prompt | {"prompt": RAW, "raw": True, "stream": False}
    assert http.post("/api/generate", json=raw).json()["response"] == answer
    lines = [json.loads(line) for line in http.post("/api/chat", json=chat).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == answer
    assert len(lines) > 2  # text comes in parts
    assert (lines[-1]["done"], lines[-1]["prompt_eval_count"]) == (True, 13)


def test_a_request_without_a_prompt_loads_the_adapter(http: httpx.Client) -> None:
    assert http.post("/api/generate", json={"model": "wrap:latest"}).json()["done_reason"] == "load"
    assert "wrap@1:latest" in [model["model"] for model in http.get("/api/ps").json()["models"]]


@pytest.mark.parametrize(
    ("parameters", "text", "reason"),
    [
        ({"stop": ["l"]}, "abl", "stop_sequence"),
        ({"max_new_tokens": 2}, "ab", "length"),
        ({"max_new_tokens": None}, "ablet", "eos_token"),
        ({"grammar": {"type": "regex", "value": "[xy]{3}"}, "return_full_text": True}, None, "eos_token"),
    ],
)
def test_an_answer_ends_as_in_tgi(
    http: httpx.Client, parameters: dict[str, Any], text: str | None, reason: str
) -> None:
    asked = {"adapter_id": "roll", "max_new_tokens": 8, "details": True} | parameters
    answer = http.post("/generate", json={"inputs": RAW, "parameters": asked}).json()
    assert answer["details"]["finish_reason"] == reason
    assert text in (None, answer["generated_text"])
    if text is None:
        assert set(answer["generated_text"].removeprefix(RAW)) <= set("xy")


def test_a_prompt_is_cut_from_the_left_and_shown_with_its_log_probabilities(http: httpx.Client) -> None:
    asked = {"adapter_id": "roll", "max_new_tokens": 1, "truncate": 3, "decoder_input_details": True}
    details = http.post("/generate", json={"inputs": RAW, "parameters": asked}).json()["details"]
    assert [token["text"] for token in details["prefill"]][1:] == ["e", "<|assistant|>"]
    assert details["prefill"][0]["logprob"] is None
    assert details["prefill"][1]["logprob"] < 0
    assert details["prompt_tokens"] == 3


@pytest.mark.parametrize("path", ["/generate", "/api/chat"])
def test_a_refusal_of_vllm_is_in_the_client_s_shape(http: httpx.Client, path: str) -> None:
    options = {"temperature": -1.0}
    body: dict[str, Any] = (
        {"inputs": RAW, "parameters": options}
        if path == "/generate"
        else {"model": "roll", "messages": [{"role": "user", "content": "x"}], "options": options}
    )
    reply = http.post(path, json=body)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
    assert "temperature" in reply.json()["error"]
