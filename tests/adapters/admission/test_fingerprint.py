"""What a base's fingerprint depends on: its weights and how they are used, and nothing else."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission import fingerprint as module
from lora_compose.adapters.admission.fingerprint import fingerprint
from tests.adapters.adapter_files import WIDTH, write_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small model with all its weights."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def copy(base: Path) -> Path:
    return Path(shutil.copytree(base, base.parent / "copy"))


def set_in_config(directory: Path, **fields: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change(directory: Path, act: Callable[[torch.Tensor], torch.Tensor], name: str = "norm") -> None:
    weights = load_file(directory / "model.safetensors")
    key = next(key for key in weights if name in key)
    save_file(weights | {key: act(weights[key])}, directory / "model.safetensors", {"format": "pt"})


def split(directory: Path) -> None:
    """Divide the weights into several files with an index, as save_pretrained does for large models."""
    LlamaForCausalLM.from_pretrained(directory).save_pretrained(directory, max_shard_size="20KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    assert (directory / "model.safetensors.index.json").is_file()


def add_beside_index(directory: Path) -> None:
    split(directory)
    save_file({"x": torch.ones(1)}, directory / "other.safetensors")


SAME: dict[str, Callable[[Path], object]] = {
    "another directory": lambda _: None,
    "a renamed file": lambda path: (path / "model.safetensors").rename(path / "weights.safetensors"),
    "other metadata in the file": lambda path: save_file(
        load_file(path / "model.safetensors"), path / "model.safetensors", {"written-by": "someone"}
    ),
    "several files": split,
    "a tokenizer": lambda path: (path / "tokenizer.json").write_text("{}"),
    "config values that change no number": lambda path: set_in_config(
        path, torch_dtype="float16", transformers_version="4.0.0", use_cache=False, _name_or_path="/x"
    ),
    "a file beside an index": add_beside_index,
}
OTHER: dict[str, Callable[[Path], object]] = {
    "one number": lambda path: change(path, lambda weight: weight.index_fill(0, torch.tensor([5]), 1.5)),
    "another dtype": lambda path: change(path, torch.Tensor.half),
    "a larger vocabulary": lambda path: change(path, lambda weight: torch.cat([weight, weight[:1]]), "embed"),
    "other heads": lambda path: set_in_config(path, num_attention_heads=2),
    "another rotary base": lambda path: set_in_config(path, rope_theta=5e5),
    "another architecture": lambda path: set_in_config(path, model_type="mistral"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_weights_have_the_same_fingerprint(base: Path, name: str) -> None:
    other = copy(base)
    SAME[name](other)
    assert fingerprint(other) == fingerprint(base)


@pytest.mark.parametrize("name", OTHER)
def test_other_weights_have_another_fingerprint(base: Path, name: str) -> None:
    other = copy(base)
    OTHER[name](other)
    assert fingerprint(other) != fingerprint(base)


def test_a_checkpoint_without_safetensors_is_known_by_its_files(tmp_path: Path) -> None:
    write_base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "renamed.bin")
    assert fingerprint(tmp_path) == first
    (tmp_path / "renamed.bin").write_bytes(b"two")
    assert fingerprint(tmp_path) != first


def test_of_a_large_model_only_parts_are_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WHOLE_BYTES", 1000), ("SPANS", 64), ("SPAN_BYTES", 16)):
        monkeypatch.setattr(module, name, value)
    pieces = module._pieces(base)
    read = sum(map(len, module._read(pieces)))
    assert 16 * len(pieces) <= read <= 16 * (64 + 2 * len(pieces)) < sum(piece.size for piece in pieces)
    other = copy(base)
    change(other, lambda weight: weight * 1.001, "mlp.up_proj")
    assert fingerprint(other) != fingerprint(base)


def test_sixteen_gigabytes_take_seconds(tmp_path: Path) -> None:
    """The file is sparse: its header names 32 tensors of 512 MiB, and the disk holds only the header."""
    size = 512 << 20
    header = {
        f"layer.{i}": {
            "dtype": "BF16",
            "shape": [1 << 14, 1 << 14],
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(32)
    }
    text = json.dumps(header).encode()
    write_base(tmp_path)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 32 * size)
    started = time.monotonic()
    fingerprint(tmp_path)
    assert time.monotonic() - started < 10
