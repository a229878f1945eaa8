"""`/generate`, `/generate_stream` and `POST /` speak with clients of LoRAX, TGI and huggingface_hub."""

import json
from typing import Any

import httpx
import pytest

from tests.server.translations.vllm_stand_in import VllmStandIn

BOTH = {"ids": ["roll", "upper"], "weights": [0.7, 0.3]}


def generated(client: httpx.Client, path: str = "/generate", **parameters: Any) -> Any:
    reply = client.post(path, json={"inputs": "roll", "parameters": parameters})
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.headers["content-type"] == "text/event-stream"
    return [json.loads(event.removeprefix("data:")) for event in reply.text.split("\n\n") if event]


def test_the_text_is_answered_alone_and_in_a_list_on_the_root(client: httpx.Client) -> None:
    assert generated(client) == {"generated_text": "abl"}
    assert generated(client, "/") == [{"generated_text": "abl"}]
    assert generated(client, return_full_text=True) == {"generated_text": "rollabl"}


def test_details_have_every_token_of_prompt_and_answer(client: httpx.Client) -> None:
    details = generated(client, details=True, decoder_input_details=True, seed=7)["details"]
    assert details["tokens"][-2:] == [
        {"id": 108, "text": "l", "logprob": -0.5, "special": False},
        {"id": 2, "text": "</s>", "logprob": -0.5, "special": True},
    ]
    assert details["prefill"] == [
        {"id": 1, "text": "", "logprob": None},
        {"id": 87, "text": "r", "logprob": -5.8},
    ]
    counts = {name: details[name] for name in ("finish_reason", "prompt_tokens", "generated_tokens", "seed")}
    assert counts == {"finish_reason": "eos_token", "prompt_tokens": 2, "generated_tokens": 4, "seed": 7}


@pytest.mark.parametrize(("path", "body"), [("/generate_stream", {}), ("/", {"stream": True})])
def test_a_stream_has_one_event_for_each_token(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    reply = client.post(path, json={"inputs": "roll", "parameters": {"adapter_id": "roll"}, **body})
    told = events(reply)
    assert [event["token"]["id"] for event in told] == [97, 98, 108, 2]
    assert "".join(event["token"]["text"] for event in told) == "abl"
    assert [event["index"] for event in told] == [1, 2, 3, 4]
    assert [event["generated_text"] for event in told] == [None, None, None, "abl"]
    assert told[-1]["token"]["special"]
    assert told[-1]["details"] == {
        "finish_reason": "eos_token",
        "prompt_tokens": 2,
        "input_length": 2,
        "generated_tokens": 4,
        "seed": None,
    }
    assert reply.headers["x-lora-composition"] == "roll@1"


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, "testbed-base"),
        ({"adapter_id": "roll"}, "roll@1"),
        ({"adapter_id": "roll", "adapter_source": "local", "api_token": "hf_x"}, "roll@1"),
        ({"adapter_id": "roll:0.5+upper"}, "roll@1:0.5+upper@1"),
        (
            {"merged_adapters": BOTH | {"merge_strategy": None, "density": 0.0}},
            "linear(roll@1:0.7+upper@1:0.3)",
        ),
    ],
)
def test_the_adapters_of_the_parameters_answer(
    client: httpx.Client, vllm: VllmStandIn, parameters: dict[str, Any], name: str
) -> None:
    generated(client, **parameters)
    assert vllm.asked[-1][1]["model"] == name


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"parameters": {"adapter_id": "nosuch"}}, "model_not_found", "model"),
        ({"parameters": {"adapter_id": ""}}, "invalid_name", "parameters.adapter_id"),
        (
            {"parameters": {"adapter_id": "roll", "adapter_source": "hub"}},
            "source_not_allowed",
            "parameters.adapter_source",
        ),
        (
            {"parameters": {"adapter_id": "roll", "merged_adapters": BOTH}},
            "conflicting_fields",
            "merged_adapters",
        ),
        (
            {"parameters": {"adapter_id": "roll"}, "model": "upper"},
            "conflicting_fields",
            "parameters.adapter_id",
        ),
        ({"parameters": {"adapterId": "roll"}}, "unknown_field", "parameters.adapterId"),
        ({"parameters": {"lora_id": "roll"}}, "unknown_field", "parameters.lora_id"),
        ({"adapter_id": "roll"}, "unknown_field", "adapter_id"),
        ({"inputs": ""}, "invalid_request", "inputs"),
        ({"inputs": ["a", "b"]}, "invalid_request", "inputs"),
        ({"stream": True}, "invalid_request", "stream"),
        ({"text": "roll"}, "unknown_field", "text"),
    ],
)
def test_a_wrong_request_is_refused_and_not_answered_by_the_base(
    client: httpx.Client, vllm: VllmStandIn, body: dict[str, Any], code: str, param: str
) -> None:
    reply = client.post("/generate", json={"inputs": "roll", **body})
    told = reply.json()
    assert (told["code"], told["param"], told["error_type"]) == (code, param, "validation")
    assert isinstance(told["error"], str)
    assert 400 <= reply.status_code < 500
    assert vllm.asked == []


def test_an_error_in_a_stream_is_tgi_s_last_event(client: httpx.Client, vllm: VllmStandIn) -> None:
    vllm.fails_at = 1
    told = events(client.post("/generate_stream", json={"inputs": "roll"}))
    assert told[0]["token"]["text"] == "a"
    assert (told[1]["error_type"], told[1]["code"]) == ("generation", "internal_error")
    assert len(told) == 2


def test_info_names_the_base_and_the_limits(client: httpx.Client) -> None:
    told = client.get("/info").json()
    assert (told["model_id"], told["max_total_tokens"], told["max_best_of"]) == ("testbed-base", 2048, 1)
