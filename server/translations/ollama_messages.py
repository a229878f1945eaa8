"""Ollama's messages as OpenAI's. Ollama's tool calls have no id, and their arguments are objects."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from lora_compose.server.http.body import Body, Text
from lora_compose.server.translations.refusals import unsupported


class OllamaFunction(Body):
    """The function of a tool call."""

    name: Text
    arguments: dict[str, Any] = Field(default_factory=dict)
    index: int | None = None
    description: Text | None = None


class OllamaToolCall(Body):
    """A call that the model made in an earlier answer."""

    function: OllamaFunction
    id: Text | None = None
    type: Text | None = None


class OllamaMessage(Body):
    """A message of a chat."""

    role: Text
    content: Text | None = None
    thinking: Text | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: Text | None = None
    tool_call_id: Text | None = None
    name: Text | None = None
    images: list[Any] | None = None
    """Not supported."""


def messages_for_vllm(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """The same chat for `/v1/chat/completions`. Raises InvalidRequest for images."""
    open_calls: list[tuple[str, str]] = []
    return [_message(message, index, open_calls) for index, message in enumerate(messages)]


def _message(message: OllamaMessage, index: int, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    """`open_calls` has the (id, function) of each tool call that has no answer yet."""
    if message.images:
        raise unsupported(f"messages[{index}].images", "Send text only.")
    made: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.thinking:
        made["reasoning"] = message.thinking
    if message.name:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [_call(call, f"call_{index}_{i}") for i, call in enumerate(message.tool_calls)]
        open_calls += [(call["id"], call["function"]["name"]) for call in made["tool_calls"]]
    if message.role == "tool":
        made["tool_call_id"] = message.tool_call_id or _answered(
            message.tool_name or message.name, open_calls
        )
    return made


def _call(call: OllamaToolCall, call_id: str) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": json.dumps(call.function.arguments)}
    return {"id": call.id or call_id, "type": "function", "function": function}


def _answered(name: str | None, open_calls: list[tuple[str, str]]) -> str:
    """The id of the first open call of that function, or of any function if the message names none."""
    for call in open_calls:
        if name in (None, call[1]):
            open_calls.remove(call)
            return call[0]
    return "call_unknown"
