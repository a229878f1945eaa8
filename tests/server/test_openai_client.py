"""The unchanged `openai` client works."""

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

MESSAGES = [{"role": "user", "content": "roll table"}]


def chat(client: openai.OpenAI, model: str, **options: Any) -> ChatCompletion:
    create: Any = client.chat.completions.create
    reply: ChatCompletion = create(model=model, messages=MESSAGES, **options)
    return reply


@pytest.mark.parametrize("model", ["testbed-base", "roll", "roll+upper", "svd(roll+upper,rank=8)"])
def test_chat_and_its_stream_agree(client: openai.OpenAI, model: str) -> None:
    whole = chat(client, model, temperature=0)
    frames: Any = chat(client, model, temperature=0, stream=True)
    streamed = "".join(frame.choices[0].delta.content or "" for frame in frames)
    assert streamed == whole.choices[0].message.content


def test_the_reply_names_the_version_that_answered(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.with_raw_response.create
    raw = create(model="roll:0.5+upper", messages=MESSAGES)
    assert raw.headers["x-lora-composition"] == raw.parse().model == "roll@1:0.5+upper@1"


def test_adapters_go_in_extra_body(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="testbed-base",
        prompt="x",
        max_tokens=1,
        extra_body={"adapters": [{"name": "roll", "weight": 0.5}]},
    )
    assert reply.model == "roll@1:0.5"


def test_responses_work_with_a_composition(client: openai.OpenAI) -> None:
    reply = client.responses.create(
        model="roll+upper", input="roll table", temperature=0, max_output_tokens=32
    )
    chatted = chat(client, "roll+upper", temperature=0)
    assert reply.output_text == chatted.choices[0].message.content


def test_structured_output_binds_a_composition(client: openai.OpenAI) -> None:
    reply = chat(
        client,
        "roll+upper",
        temperature=0,
        max_tokens=40,
        extra_body={"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}},
    )
    content = reply.choices[0].message.content or ""
    assert len(content) == 8
    assert content.replace("-", "").isdigit()


def test_a_forced_tool_call_works_with_a_composition(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    }
    reply = chat(
        client,
        "roll+upper",
        temperature=0,
        max_tokens=200,
        tools=[
            {"type": "function", "function": {"name": "switch", "strict": True, "parameters": parameters}}
        ],
        tool_choice={"type": "function", "function": {"name": "switch"}},
    )
    calls: Any = reply.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["switch"]


def test_logprobs_come_with_a_composition(client: openai.OpenAI) -> None:
    reply = chat(
        client,
        "roll+upper",
        logprobs=True,
        top_logprobs=3,
        max_tokens=2,
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert [len(token.top_logprobs) for token in logprobs.content or []] == [3, 3]


def test_models_lists_the_base_first_then_adapters_with_their_parent(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert models[0].id == "testbed-base"
    assert {getattr(model, "parent", None) for model in models[1:]} == {"testbed-base"}
    assert client.models.retrieve("roll").id == "roll"


def test_errors_are_the_client_s_exception_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        chat(client, "nobody")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        chat(client, "roll:heavy")
    assert bad.value.code == "invalid_weight"
    with pytest.raises(openai.BadRequestError) as parameter:
        chat(client, "roll", temperature=-1)
    assert parameter.value.param == "temperature"
    with pytest.raises(openai.UnprocessableEntityError):
        chat(client, "svd(roll+upper,rank=512)")
