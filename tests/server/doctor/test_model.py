"""Real model directories: the shipped base, and copies of it with one fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.doctor import model
from lora_compose.server.doctor.check import Result, examine
from lora_compose.server.memory import plan_kv_cache


def look(directory: Path) -> dict[str, Result]:
    return {check.name: examine(check) for check in model.checks(directory)}


def only(directory: Path, name: str) -> Result:
    return next(examine(check) for check in model.checks(directory) if check.name == name)


def edit(directory: Path, **changes: object) -> None:
    """Change fields of config.json; None removes a field."""
    file = directory / "config.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED_BASE, tmp_path / "copied"))


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_a_shard(directory: Path) -> None:
    index = {
        "weight_map": {"model.norm.weight": "model.safetensors", "lm_head.weight": "model-2.safetensors"}
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def only_pickles(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def no_template(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()


BROKEN: list[tuple[Callable[[Path], object], str, str, str]] = [
    (lambda d: (d / "config.json").unlink(), "config", "fail", "no config.json"),
    (lambda d: (d / "config.json").write_text("{"), "config", "fail", "not valid JSON"),
    (lambda d: edit(d, model_type=None), "config", "fail", "no model_type"),
    (lambda d: edit(d, auto_map={"AutoModel": "x.Y"}), "config", "warn", "own Python code"),
    (lambda d: edit(d, architectures=["NoSuchForCausalLM"]), "architecture", "fail", "does not know"),
    (lambda d: edit(d, architectures=None), "architecture", "fail", "names no architectures"),
    (lambda d: edit(d, architectures=["BertModel"]), "architecture", "fail", "no text"),
    (lambda d: edit(d, architectures=["BloomForCausalLM"]), "architecture", "fail", "no LoRA"),
    (lambda d: (d / "tokenizer.json").write_text("{}"), "tokenizer", "fail", ""),
    (lambda d: edit(d, vocab_size=100), "tokenizer", "fail", "262 tokens and the model 100"),
    (no_template, "chat template", "warn", "/v1/chat/completions will be refused"),
    (cut, "weights", "fail", "model.safetensors is damaged"),
    (lose_a_shard, "weights", "fail", "lm_head.weight in model-2.safetensors"),
    (only_pickles, "weights", "fail", "pickles"),
    (lambda d: (d / "model.safetensors").unlink(), "weights", "fail", "no *.safetensors"),
    (lambda d: edit(d, dtype="int7", torch_dtype=None), "dtype", "fail", "'int7'"),
    (lambda d: edit(d, dtype=None, torch_dtype=None), "dtype", "warn", "no dtype"),
    (lambda d: edit(d, model_type="no-such-model"), "shapes", "fail", "no-such-model"),
]


def test_the_shipped_base_has_nothing_wrong() -> None:
    assert {name: found.sentence for name, found in look(EMBEDDED_BASE).items() if found.status != "ok"} == {}


@pytest.mark.parametrize(("damage", "name", "status", "words"), BROKEN)
def test_what_is_broken_is_named_with_what_to_do(
    damage: Callable[[Path], object], name: str, status: str, words: str, copy: Path
) -> None:
    damage(copy)
    found = only(copy, name)
    assert (found.status, words in found.sentence) == (status, True), found
    assert found.advice


def test_without_a_config_one_thing_is_said_and_not_eight(tmp_path: Path) -> None:
    assert list(look(tmp_path / "nowhere")) == ["config"]


def test_weights_that_do_not_fit_in_memory_are_said_before_they_are_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"big": torch.zeros(1 << 20)}, copy / "more.safetensors")
    monkeypatch.setattr("lora_compose.server.memory.free_memory", lambda: 1 << 20)
    found = only(copy, "memory")
    assert (found.status, "are free, and this server needs" in found.sentence) == ("fail", True)


def test_memory_is_the_sum_that_serve_does(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_compose.server.memory.free_memory", lambda: 20 << 30)
    said = plan_kv_cache(str(copy)).sentence()
    assert said.startswith("KV cache: 1.0 GiB of 20.0 GiB free memory")
    assert (only(copy, "memory").status, only(copy, "memory").sentence) == ("ok", said)


def test_a_kv_cache_that_holds_less_than_the_longest_batch_is_a_warning(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_compose.server.memory.free_memory", lambda: 5 << 29)
    assert only(copy, "memory").status == "warn"
