"""Checks of a generating request that vLLM does not make, or makes late: its size, its number of sequences,
and earlier answers.

`sequences` counts `n` answers for each prompt, because vLLM generates all of them at once, and the texts that
a pooling route embeds. `check_answers`
looks at the earlier answers that a client sends back to `/v1/responses`: vLLM reads `content[0].text` of each
(`responses/utils.py`, vLLM 0.32), so an answer that is empty or begins with a refusal would end in a 500.
"""

from collections.abc import Mapping
from typing import Any

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.server.paths import POOLING

MAX_FIELDS = 1024
"""The most fields of a request. vLLM knows less than a hundred."""
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


def check_size(body: Mapping[str, Any], max_model_len: int) -> None:
    """Raises InvalidRequest for a prompt of too many token ids, and for too many fields.

    vLLM refuses such prompts too, but first it copies and checks each number on the event loop: a million of
    them delay every other answer by half a second."""
    if len(body) > MAX_FIELDS:
        raise InvalidRequest(Code.INVALID_REQUEST, f"The request has more than {MAX_FIELDS} fields.")
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or body.get("truncate_prompt_tokens") is not None:
        return
    is_one = prompt and isinstance(prompt[0], int)
    longest = max((len(ids) for ids in ([prompt] if is_one else prompt) if isinstance(ids, list)), default=0)
    if longest > max_model_len:
        message = (
            f"This model's maximum context length is {max_model_len} tokens. The prompt has {longest} "
            "tokens. Send a shorter prompt."
        )
        raise InvalidRequest(Code.INVALID_REQUEST, message, "prompt")


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
