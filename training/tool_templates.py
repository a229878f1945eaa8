"""Checks that the base's chat template writes the tools, calls and answers of tools that rows have.

Many templates leave them out without an error. The adapter would then learn to answer nothing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data.messages import columns
from lora_compose.training.data.rows import TOOLS, Rows

ADVICE = (
    "Train a base whose chat template writes tools, for example Qwen2.5 or Llama 3.1, or leave out the rows "
    "with tools"
)


def check_tools(rows: Rows, tokenizer: Any) -> None:
    """Raises LoraComposeError("chat_template_failed") with the place of a row that is not written whole.

    The base's own template is checked, because a server uses it. Rows without tools are not checked.
    """
    for origin, row in zip(rows.origins, rows.dataset, strict=True):
        place = origin.place
        for written, wanted in _conversations(row):
            missing = _missing(written, wanted, row.get(TOOLS), tokenizer, place)
            if missing is not None:
                raise _failed(f"{place}: the base's chat template leaves out {missing!r}")


def _conversations(row: Mapping[str, Any]) -> Iterator[tuple[list[Any], list[str]]]:
    """The conversations of a row, one for each answer, each with the texts that must be in it."""
    found = columns(dict(row))
    prompt = found.pop("prompt", [])
    offered = json.loads(row.get(TOOLS) or "[]")
    names = [tool["function"]["name"] for tool in offered]
    for answer in found.values():
        conversation = [*prompt, *answer]
        calls = [call["function"]["name"] for turn in conversation for call in turn.get("tool_calls", ())]
        answers = [turn["content"].strip() for turn in conversation if turn["role"] == "tool"]
        yield conversation, [*names, *calls, *answers]


def _missing(
    conversation: list[Any], wanted: list[str], tools: str | None, tokenizer: Any, place: str
) -> str | None:
    """The first text that the template does not write, or None."""
    from jinja2 import TemplateError

    if not wanted:
        return None
    offered = None if tools is None else json.loads(tools)
    try:
        text = tokenizer.apply_chat_template(conversation, tools=offered, tokenize=False)
    except (TemplateError, TypeError, ValueError) as error:
        raise _failed(f"{place}: the base's chat template refuses the tools or calls: {error}") from error
    return next((item for item in wanted if not any(form in text for form in _forms(item))), None)


def _forms(text: str) -> tuple[str, str, str]:
    """The text, and as JSON writes it, without the quotes."""
    return text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]


def _failed(message: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.CHAT_TEMPLATE_FAILED, f"{message}. {ADVICE}", "domain")
