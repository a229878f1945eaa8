"""Damaged model directories are refused in a second, without vLLM."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.process import COMMAND, free_port
from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.model_files import INDEX, check_model_files

WEIGHTS = "model.safetensors"


def cut(model: Path) -> None:
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[:-1000])


def empty(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"")


def no_weights(model: Path) -> None:
    (model / WEIGHTS).unlink()


def pointer(model: Path) -> None:
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")


def a_shard_is_missing(model: Path) -> None:
    placed = {"model.norm.weight": WEIGHTS, "model.embed_tokens.weight": "model-00002.safetensors"}
    (model / INDEX).write_text(json.dumps({"weight_map": placed}))


def only_an_index(model: Path) -> None:
    a_shard_is_missing(model)
    no_weights(model)
    (model / "training_args.bin").touch()


def bad_index(model: Path) -> None:
    (model / INDEX).write_text("[]")


def bad_config(model: Path) -> None:
    (model / "config.json").write_text("{not json")


def no_object(model: Path) -> None:
    (model / "config.json").write_text("[]")


DAMAGES: dict[Callable[[Path], None], str] = {
    cut: "model.safetensors is damaged",
    empty: "model.safetensors is damaged",
    no_weights: "there are no *.safetensors files",
    pointer: "model.safetensors is a Git LFS pointer (`git lfs pull` fetches the file)",
    a_shard_is_missing: "lists 1 tensors that are missing, for example model.embed_tokens.weight in",
    only_an_index: "there are no *.safetensors files",
    bad_index: "model.safetensors.index.json is damaged",
    bad_config: "config.json cannot be read",
    no_object: "config.json is not a JSON object",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(EMBEDDED_BASE, tmp_path / "a model, größer")


@pytest.mark.parametrize(("damage", "said"), DAMAGES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_the_damage_is_named(model: Path, damage: Callable[[Path], None], said: str) -> None:
    check_model_files(str(model), [])
    damage(model)
    with pytest.raises(LoraComposeError) as refused:
        check_model_files(str(model), [])
    assert (refused.value.code, said in refused.value.message) == ("no_model", True), refused.value.message


def test_other_formats_and_hub_names_are_left_to_vllm(model: Path) -> None:
    check_model_files("org/model", [])
    no_weights(model)
    check_model_files(str(model), ["--load-format", "dummy"])
    (model / "pytorch_model.bin").touch()
    check_model_files(str(model), [])


def test_the_command_refuses_with_one_line_and_code_1(model: Path, tmp_path: Path) -> None:
    cut(model)
    options = ["--port", str(free_port()), "--data-dir", str(tmp_path / "data"), "--model", str(model)]
    ended = subprocess.run([COMMAND, "serve", *options], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert ended.stderr.startswith(f"error: --model {model}: model.safetensors is damaged")
