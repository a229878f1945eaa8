"""Data files, written for a test."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def written(path: Path, rows: Iterable[Any]) -> str:
    """The path of a JSONL file of `rows`. A row that is a string is written without change."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)
