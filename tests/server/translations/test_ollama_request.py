"""Each option of Ollama is passed to vLLM with its meaning; tool calls keep theirs in both directions."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lora_compose.server.generation.translation import Translated
from lora_compose.server.translations.ollama_request import OLLAMA
from tests.server.app_without_engine import StandIn

HELLO = [{"role": "user", "content": "roll"}]
PARSING = replace(StandIn(), parses_tools=True, parses_reasoning=True)
CALL = {"function": {"name": "add", "arguments": {"a": 1}}}


def translated(**body: Any) -> Translated:
    return OLLAMA["/api/chat"].translate({"model": "roll", "messages": HELLO, **body}, PARSING)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"max_tokens": 2048, "temperature": None, "seed": None}),
        (
            {"num_predict": 3, "temperature": 0, "stop": ["b"]},
            {"max_tokens": 3, "temperature": 0, "stop": ["b"]},
        ),
        ({"num_predict": -1, "seed": -1}, {"max_tokens": 2048, "seed": None}),
        (
            {"seed": 7, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
            {"seed": 7, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
        ),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, {"repetition_penalty": 1.1}),
        (
            {"repeat_last_n": 64, "repeat_penalty": 1.0, "num_ctx": 512, "mirostat": 0, "mirostat_tau": 5.0},
            {},
        ),
    ],
)
def test_an_option_has_its_meaning(options: dict[str, Any], fields: dict[str, Any]) -> None:
    body = translated(options=options).body
    assert {name: body.get(name) for name in fields} == fields


def test_a_format_is_a_structure() -> None:
    assert translated(format="json").body["structured_outputs"] == {"json_object": True}
    assert translated(format={"type": "object"}).body["structured_outputs"] == {"json": {"type": "object"}}
    assert "structured_outputs" not in translated(format="").body


def test_thinking_is_a_setting_of_the_template() -> None:
    assert translated(think=False).body["chat_template_kwargs"] == {"enable_thinking": False}
    body = translated(think="low").body
    assert (body["reasoning_effort"], body["chat_template_kwargs"]) == ("low", {"enable_thinking": True})


def test_tool_calls_of_a_chat_get_ids_that_their_answers_name() -> None:
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [CALL, {"function": {"name": "mul"}}]},
        {"role": "tool", "content": "6", "tool_name": "mul"},
        {"role": "tool", "content": "2"},
    ]
    sent = translated(messages=messages).body["messages"]
    calls = sent[1]["tool_calls"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1}
    assert [sent[2]["tool_call_id"], sent[3]["tool_call_id"]] == [calls[1]["id"], calls[0]["id"]]


def test_tool_calls_of_an_answer_have_objects_as_arguments() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": function}]}
    choice = {"message": message, "finish_reason": "tool_calls", "logprobs": None}
    answer = {"model": "roll@1", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    shown: Any = translated(stream=False).reply.whole(answer)
    assert shown["message"] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert shown["done_reason"] == "stop"


def test_tool_calls_of_a_stream_come_as_a_whole() -> None:
    reply = translated().reply
    parts = [{"name": "add", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}]
    deltas: list[dict[str, Any]] = [{"tool_calls": [{"index": 0, "function": part}]} for part in parts]
    for delta in [*deltas, {"reasoning": "hm"}]:
        choice = {"delta": delta, "finish_reason": None, "logprobs": None}
        sent = list(reply.event({"model": "roll@1", "choices": [choice]}))
    assert json.loads(sent[0])["message"]["thinking"] == "hm"
    call, last = map(json.loads, reply.end())
    assert call["message"]["tool_calls"] == [CALL]
    assert last["done"]
