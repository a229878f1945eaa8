"""How many answers one request asks for: `n` of each of its prompts, which vLLM makes all at once.

What vLLM's `/v1/responses` takes for granted in earlier answers that a client sends back.

It reads `content[0].text` of each (`responses/utils.py`, vLLM 0.32), so an answer that is empty, or begins
with a refusal, ends in a 500. A client can cause that, and is told.
"""

from collections.abc import Mapping
from typing import Any

from lora_compose.adapters.errors import Code, InvalidRequest


def sequences(body: Mapping[str, Any]) -> int:
    """At least 1. What vLLM will refuse counts as 1."""
    prompts = _prompts(body.get("prompt")) + _prompts(body.get("prompt_embeds"))
    return max(1, prompts) * max(1, _number(body.get("n")), _number(body.get("best_of")))


def _prompts(given: object) -> int:
    """A list of numbers is one prompt; of anything else, as many as it has."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return len(given)
    return 0 if given is None else 1


def _number(given: object) -> int:
    """As vLLM reads it, which takes "3" and 3.0 for 3."""
    try:
        return int(given) if isinstance(given, int | float | str) else 1
    except (ValueError, OverflowError):
        return 1


def check_answers(items: object) -> None:
    """Raises InvalidRequest("invalid_request") for `input` that holds such an answer; all else is vLLM's."""
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == "message" and item.get("role") == "assistant":
            _check_content(item.get("content"), f"input[{index}].content")


def _check_content(content: object, param: str) -> None:
    if not isinstance(content, list):
        return
    first = content[0] if content else None
    if first is None or (isinstance(first, dict) and first.get("type") == "refusal"):
        raise InvalidRequest(Code.INVALID_REQUEST, f"{param} must begin with an output_text.", param)
