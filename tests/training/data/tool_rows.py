"""Rows with tools, as OpenAI's fine-tuning, its form of before, and ShareGPT write them."""

import json
from typing import Any

ARGUMENTS = {"city": "Paris", "days": 2}
FUNCTION = {
    "name": "forecast",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
USER = {"role": "user", "content": "weather in Paris"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "forecast", "arguments": json.dumps(ARGUMENTS)},
}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'}
ANSWER = {"role": "assistant", "content": "it is clear"}
OPENAI: dict[str, Any] = {
    "messages": [USER, CALLING, RESULT, ANSWER],
    "tools": TOOLS,
    "parallel_tool_calls": False,
}
OPENAI_OF_BEFORE: dict[str, Any] = {
    "messages": [
        USER,
        {
            "role": "assistant",
            "content": "",
            "function_call": {"name": "forecast", "arguments": json.dumps(ARGUMENTS)},
        },
        {"role": "function", "name": "forecast", "content": '{"sky": "clear"}'},
        ANSWER,
    ],
    "functions": [FUNCTION],
}
SHAREGPT: dict[str, Any] = {
    "conversations": [
        {"from": "human", "value": "weather in Paris"},
        {"from": "function_call", "value": json.dumps({"name": "forecast", "arguments": ARGUMENTS})},
        {"from": "observation", "value": '{"sky": "clear"}'},
        {"from": "gpt", "value": "it is clear"},
    ],
    "tools": json.dumps([FUNCTION]),
}
PREFERENCE: dict[str, Any] = {
    "input": {"messages": [USER], "tools": TOOLS, "parallel_tool_calls": True},
    "preferred_output": [CALLING],
    "non_preferred_output": [{"role": "assistant", "content": "i do not know"}],
}
