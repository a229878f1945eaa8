"""Files of rows that commands write."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, Conflict, InvalidRequest, StorageUnavailable


def check_output(output: Path, force: bool) -> None:
    """Check the name of a file before work begins.

    Raises InvalidRequest("invalid_output"), or Conflict("output_exists") if it is there and not `force`.
    """
    if output.suffix not in (".jsonl", ".json"):
        raise InvalidRequest(
            CommandCode.INVALID_OUTPUT,
            f"The name of {output} must end with .jsonl or .json, because it is written as JSONL",
            "OUT",
        )
    if output.exists() and not force:
        raise Conflict(CommandCode.OUTPUT_EXISTS, f"{output} already exists. Use --force to replace it")


def write_rows(output: Path, rows: Sequence[Any]) -> None:
    """Write rows as JSONL. Raises as `write_text`."""
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(file: Path, text: str) -> None:
    """Write the file atomically. Raises StorageUnavailable("output_not_written")."""
    scratch = file.with_name(f".{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text)
        scratch.replace(file)
    except OSError as error:
        raise StorageUnavailable(
            CommandCode.OUTPUT_NOT_WRITTEN, f"{file} cannot be written: {error}"
        ) from error
