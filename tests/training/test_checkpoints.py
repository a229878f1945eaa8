"""A run resumes from the last checkpoint that is whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_compose.training.checkpoints import last_whole_checkpoint


def checkpoint(directory: Path, step: int) -> Path:
    made = directory / f"checkpoint-{step}"
    made.mkdir()
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"w": torch.ones(4)}, made / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.ones(2)}, made / name)
    return made


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def test_the_newest_is_taken_by_its_number(tmp_path: Path) -> None:
    for step in (9, 100, 30):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    assert last_whole_checkpoint(tmp_path, pytest.fail) == str(tmp_path / "checkpoint-100")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda made: cut(made / "adapter_model.safetensors"), r"adapter_model\.safetensors is cut"),
        (lambda made: cut(made / "optimizer.pt"), r"optimizer\.pt is cut"),
        (lambda made: (made / "optimizer.pt").unlink(), r"optimizer\.pt is missing"),
        (lambda made: (made / "adapter_model.safetensors").unlink(), "weights are missing"),
        (lambda made: (made / "rng_state.pth").unlink(), "random states are missing"),
        (lambda made: cut(made / "trainer_state.json"), r"trainer_state\.json is cut"),
    ],
)
def test_a_checkpoint_that_was_cut_is_skipped_with_a_line(
    tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    checkpoint(tmp_path, 3)
    spoil(checkpoint(tmp_path, 6))
    lines: list[str] = []
    assert last_whole_checkpoint(tmp_path, lines.append) == str(tmp_path / "checkpoint-3")
    (line,) = lines
    assert re.search(why, line)
    assert line.startswith("checkpoint-6 is not whole")


def test_without_a_whole_one_the_run_begins_again(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 3) / "scheduler.pt").unlink()
    lines: list[str] = []
    assert last_whole_checkpoint(tmp_path, lines.append) is None
    assert len(lines) == 1
