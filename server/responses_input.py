"""What vLLM's `/v1/responses` takes for granted in earlier answers that a client sends back.

It reads `content[0].text` of each (`responses/utils.py`, vLLM 0.32), so an answer that is empty, or begins
with a refusal, ends in a 500. A client can cause that, and is told.
"""

from adapters.errors import InvalidRequest


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
        raise InvalidRequest("invalid_request", f"{param} must begin with an output_text.", param)
