"""A run resumes from the last checkpoint that is whole."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.adapters.admission.fingerprint import fingerprint
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.base_model import adapter_config
from lora_compose.training.checkpoints import last_whole_checkpoint
from lora_compose.training.run import prepare
from lora_compose.training.run_record import write_record
from lora_compose.training.testbed.paths import BASE_DIR
from tests.training.recipes import recipe


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


def test_a_run_is_not_resumed_on_other_weights_of_the_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(BASE_DIR, base)
    made = recipe(tmp_path, model_name_or_path=str(base), max_steps=1)
    prepared = prepare(made)
    assert prepared.record.base_fingerprint == fingerprint(base)
    write_record(prepared.directory, prepared.record)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(LoraComposeError, match="different values of the base's weights") as refused:
        prepare(made, resume=True)
    assert refused.value.code == "other_run"


def test_an_adapter_names_the_revision_of_its_base(tmp_path: Path) -> None:
    pinned = recipe(tmp_path, model_revision="abc123")
    assert adapter_config(pinned.model).revision == "abc123"
    assert adapter_config(recipe(tmp_path / "newest").model).revision is None


def test_one_target_module_is_a_name_and_not_a_pattern(tmp_path: Path) -> None:
    assert adapter_config(recipe(tmp_path, lora_target_modules=["q_proj"]).model).target_modules == {"q_proj"}
