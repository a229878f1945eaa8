"""A small validation set for tuning weights: JSON lines with a prompt and its only right completion.

A line is `{"prompt": "roll table", "completion": "ABLET"}`. Lists of messages are allowed in place of texts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.strict_json import NotStrictJson, parse_object

Message = dict[str, str]
FEWEST_ROWS = 4
_MAX_DEPTH = 3


@dataclass(frozen=True)
class ValidationRow:
    """A prompt, and the completion that the answer must match exactly."""

    prompt: tuple[tuple[str, str], ...]
    """(role, content) of each message."""
    completion: str

    @property
    def messages(self) -> list[Message]:
        return [{"role": role, "content": content} for role, content in self.prompt]


def read_validation(file: Path) -> list[ValidationRow]:
    """The rows of `file`.

    Raises LoraComposeError("bad_validation") with the file, the line and the reason.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise _bad(f"{file} cannot be read: {error.strerror}") from error
    rows = [_row(line, f"{file}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if len(rows) < FEWEST_ROWS:
        raise _bad(
            f"{file} has {len(rows)} rows, but tuning needs at least {FEWEST_ROWS}. "
            "32 or more are recommended"
        )
    return rows


def halves(rows: Sequence[ValidationRow], seed: int) -> tuple[list[ValidationRow], list[ValidationRow]]:
    """(rows for tuning, held-out rows), shuffled by `seed`. Rows of one prompt are all in the same half."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    random.Random(seed).shuffle(prompts)
    tuned = set(prompts[: (len(prompts) + 1) // 2])
    return [row for row in rows if row.prompt in tuned], [row for row in rows if row.prompt not in tuned]


def _row(line: bytes, where: str) -> ValidationRow:
    try:
        fields = parse_object(line, _MAX_DEPTH)
    except NotStrictJson as error:
        raise _bad(f"{where}: {error}") from error
    if fields.keys() != {"prompt", "completion"}:
        raise _bad(
            f"{where}: a row must have exactly the fields prompt and completion, but has "
            f"{', '.join(fields) or 'no fields'}"
        )
    prompt = _messages(fields["prompt"], "user", f"{where}: prompt")
    completion = _messages(fields["completion"], "assistant", f"{where}: completion")
    if [role for role, _ in completion] != ["assistant"]:
        raise _bad(f"{where}: completion must be a text or a list of one assistant message")
    return ValidationRow(prompt, completion[0][1])


def _messages(value: object, role: str, where: str) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        return ((role, value),)
    if not isinstance(value, list) or not value:
        raise _bad(f"{where} must be a text or a list of messages")
    return tuple(_message(message, where) for message in value)


def _message(value: object, where: str) -> tuple[str, str]:
    if not isinstance(value, dict) or value.keys() != {"role", "content"}:
        raise _bad(f"{where}: a message must have exactly the fields role and content")
    role, content = value["role"], value["content"]
    if not isinstance(role, str) or not isinstance(content, str):
        raise _bad(f"{where}: role and content must be texts")
    return role, content


def _bad(message: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.BAD_VALIDATION, message, "rows")
