"""The checkpoint that a run resumes from: the last one whose files are whole.

A process that is killed while it writes a checkpoint leaves files that are cut.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

STATE: Final = "trainer_state.json"
NEEDED: Final = (STATE, "optimizer.pt", "scheduler.pt")
"""Files that transformers writes into every checkpoint, beside the weights and the random states."""


def last_whole_checkpoint(directory: Path, on_skipped: Callable[[str], None]) -> str | None:
    """The newest whole checkpoint in `directory`. None if no checkpoint is whole.

    `on_skipped` gets one sentence for each newer checkpoint that is not whole.
    """
    for checkpoint in sorted(directory.glob("checkpoint-*"), key=_step, reverse=True):
        faults = list(_faults(checkpoint))
        if not faults:
            return str(checkpoint)
        on_skipped(f"{checkpoint.name} is not whole ({faults[0]}), so it is skipped")
    return None


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _faults(checkpoint: Path) -> Iterator[str]:
    for name in NEEDED:
        if not (checkpoint / name).is_file():
            yield f"{name} is missing"
    weights = list(checkpoint.glob("*.safetensors"))
    if not weights:
        yield "the weights are missing"
    if not list(checkpoint.glob("rng_state*.pth")):
        yield "the random states are missing"
    for file in weights:
        if not _is_safetensors(file):
            yield f"{file.name} is cut"
    for file in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
        if not zipfile.is_zipfile(file):  # torch writes zip files, whose table of contents is at the end
            yield f"{file.name} is cut"
    if (checkpoint / STATE).is_file() and not _is_json(checkpoint / STATE):
        yield f"{STATE} is cut"


def _is_safetensors(file: Path) -> bool:
    try:
        with safe_open(file, "pt"):  # checks that the tensors fill the file
            return True
    except (SafetensorError, OSError):
        return False


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True
