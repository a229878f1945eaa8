"""The `openai` client, unchanged."""

import openai
import pytest

MESSAGES = [{"role": "user", "content": "roll table"}]


@pytest.mark.parametrize("model", ["testbed-base", "roll", "roll+upper", "svd(roll+upper,rank=8)"])
def test_chat_and_its_stream_agree(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0)  # type: ignore[arg-type]
    frames = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, stream=True)  # type: ignore[call-overload]
    streamed = "".join(frame.choices[0].delta.content or "" for frame in frames)
    assert streamed == whole.choices[0].message.content


def test_the_reply_names_the_version_that_answered(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="roll:0.5+upper", messages=MESSAGES)  # type: ignore[arg-type]
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
    chat = client.chat.completions.create(model="roll+upper", messages=MESSAGES, temperature=0)  # type: ignore[arg-type]
    assert reply.output_text == chat.choices[0].message.content


def test_structured_output_binds_a_composition(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="roll+upper",
        messages=MESSAGES,  # type: ignore[arg-type]
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
    reply = client.chat.completions.create(
        model="roll+upper",
        messages=MESSAGES,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=200,
        tools=[
            {"type": "function", "function": {"name": "switch", "strict": True, "parameters": parameters}}
        ],  # type: ignore[list-item]
        tool_choice={"type": "function", "function": {"name": "switch"}},
    )
    calls = reply.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["switch"]  # type: ignore[union-attr]


def test_logprobs_come_with_a_composition(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="roll+upper",
        messages=MESSAGES,  # type: ignore[arg-type]
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
    assert {model.parent for model in models[1:]} == {"testbed-base"}  # type: ignore[attr-defined]
    assert client.models.retrieve("roll").id == "roll"


def test_errors_are_the_client_s_exception_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=MESSAGES)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="roll:heavy", messages=MESSAGES)  # type: ignore[arg-type]
    assert bad.value.code == "invalid_weight"
    with pytest.raises(openai.BadRequestError) as parameter:
        client.chat.completions.create(model="roll", messages=MESSAGES, temperature=-1)  # type: ignore[arg-type]
    assert parameter.value.param == "temperature"
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="svd(roll+upper,rank=512)", messages=MESSAGES)  # type: ignore[arg-type]
