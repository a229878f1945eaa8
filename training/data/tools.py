"""Tools that a conversation offers, and the calls of them, in the form that chat templates take.

Calls are read as OpenAI writes them (`tool_calls`, and `function_call` of before), and as ShareGPT does
(messages from `function_call`). The arguments become objects, as a server gives them to a chat template.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, TypedDict

from lora_compose.training.data.errors import BadRow

TOOL_COLUMNS: Final = ("tools", "functions")
"""Columns with the definitions of tools: OpenAI's, and those of before."""


class FunctionCall(TypedDict):
    """The function that is called, and its arguments."""

    name: str
    arguments: dict[str, Any]


class ToolCall(TypedDict):
    """A call of a tool. `id` is the one that the tool's answer repeats."""

    id: str
    type: str
    function: FunctionCall


def tools_of(value: object, field: str) -> str | None:
    """The definitions of tools as JSON, from a list of them or from JSON. None without any.

    Raises BadRow.
    """
    if isinstance(value, str):
        value = _parsed(value, field) if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise BadRow(f"{field} is {type(value).__name__}, not a list of tools")
    tools = [_tool(tool, f"{field}[{index}]") for index, tool in enumerate(value)]
    return json.dumps(tools, ensure_ascii=False)


def _tool(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRow(
            f"{field} is {type(value).__name__}, not the definition of a function. If the column has another "
            "meaning, rename it"
        )
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(f"{field} has no function with a name")
    return value if "function" in value else {"type": "function", "function": value}


def calls_of(message: dict[str, Any], field: str, index: int) -> list[ToolCall]:
    """The calls in a message of the assistant. `index` is its place, for calls without an id.

    Raises BadRow.
    """
    calls = message.get("tool_calls")
    if calls is None:
        old = message.get("function_call")
        return [] if old is None else [_call(old, f"{field}.function_call", index, 0)]
    if not isinstance(calls, list):
        raise BadRow(f"{field}.tool_calls is {type(calls).__name__}, not a list")
    return [_call(call, f"{field}.tool_calls[{i}]", index, i) for i, call in enumerate(calls)]


def written_calls(value: object, field: str, index: int) -> list[ToolCall]:
    """The calls that ShareGPT writes as JSON: an object with name and arguments, or a list of them.

    Raises BadRow.
    """
    parsed = _parsed(value, field) if isinstance(value, str) else value
    calls = parsed if isinstance(parsed, list) else [parsed]
    return [_call(call, field, index, i) for i, call in enumerate(calls)]


def _call(value: Any, field: str, index: int, number: int) -> ToolCall:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(f"{field} has no function with a name")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{field}.arguments") if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise BadRow(f"{field}.arguments is {type(arguments).__name__}, not an object")
    own = value.get("id")
    return ToolCall(
        id=own if isinstance(own, str) else f"call{index:03}{number:02}",
        type="function",
        function=FunctionCall(name=function["name"], arguments=arguments),
    )


def _parsed(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{field} is not JSON: {error}") from None


def call_text(calls: Sequence[ToolCall]) -> str:
    """The calls as a text, for comparing and counting."""
    return "\n".join(
        f"{call['function']['name']}({json.dumps(call['function']['arguments'], ensure_ascii=False)})"
        for call in calls
    )
