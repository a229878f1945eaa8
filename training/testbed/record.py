"""What was done and measured, in one JSON file beside the weights: settings, seconds, versions, scores."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = ("torch", "transformers", "tokenizers", "peft", "trl", "datasets")


def read_record(file: Path) -> dict[str, Any]:
    """The whole record; empty where there is none yet."""
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return record


def write_record(file: Path, section: str, facts: dict[str, Any]) -> None:
    """Replaces one section and leaves the others."""
    record = read_record(file) | {section: facts, "versions": {name: version(name) for name in PACKAGES}}
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
