"""Checks of a generating request that vLLM does not make: its number of sequences, and earlier answers.

`sequences` counts `n` answers for each prompt, because vLLM generates all of them at once, and the texts that
a pooling route embeds. `check_answers`
looks at the earlier answers that a client sends back to `/v1/responses`: vLLM reads `content[0].text` of each
(`responses/utils.py`, vLLM 0.32), so an answer that is empty or begins with a refusal would end in a 500.
"""

from collections.abc import Mapping
from typing import Any

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.server.paths import POOLING

_TEXTS = (
    *("input", "texts", "images", "inputs", "queries", "documents", "items", "text_1", "text_2", "data_1"),
    "data_2",
)
"""The fields with the texts of the pooling routes."""


def sequences(body: Mapping[str, Any], path: str) -> int:
    """The number of sequences that the request needs, at least 1. A value that vLLM refuses counts as 1."""
    if path in POOLING:
        return max(1, sum(_prompts(body.get(field)) for field in _TEXTS))
    prompts = _prompts(body.get("prompt")) + _prompts(body.get("prompt_embeds"))
    return max(1, prompts) * max(1, _number(body.get("n")), _number(body.get("best_of")))


def _prompts(value: object) -> int:
    """The number of prompts. A list of token ids is one prompt; any other list has one prompt per item."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return len(value)
    return 0 if value is None else 1


def _number(value: object) -> int:
    """The number as vLLM reads it: "3" and 3.0 are 3. Other values count as 1."""
    try:
        return int(value) if isinstance(value, int | float | str) else 1
    except (ValueError, OverflowError):
        return 1


def check_answers(items: object) -> None:
    """Raises InvalidRequest("invalid_request") if an answer in `input` does not begin with text."""
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == "message" and item.get("role") == "assistant":
            _check_content(item.get("content"), f"input[{index}].content")


def _check_content(content: object, param: str) -> None:
    if not isinstance(content, list):
        return
    first = content[0] if content else None
    if first is None or (isinstance(first, dict) and first.get("type") == "refusal"):
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"The first item of {param} must be an output_text.", param
        )
