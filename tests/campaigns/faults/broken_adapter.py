"""Makes adapters that are wrong in one way from a good adapter."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.campaigns.faults.fault import Act, refused
from tests.campaigns.faults.target import GOOD, Target

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]
Break = Callable[[Path], object]


def rejected(code: str, broken: Break) -> Act:
    """An adapter that `broken` has changed is refused with 422 and `code`."""
    return refused(f"422 {code}", send=lambda target: target.register(made(target, broken)))


def made(target: Target, broken: Break, name: str = "case") -> Path:
    """A copy of a good adapter inside the target's root, changed by `broken`."""
    directory = target.root / name
    if directory.is_symlink():
        directory.unlink()
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(GOOD, directory)
    broken(directory)
    return directory


def config(**changes: Any) -> Break:
    """Changes fields of the config."""

    def broken(directory: Path) -> None:
        path = directory / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return broken


def config_text(text: str | bytes) -> Break:
    data = text.encode() if isinstance(text, str) else text
    return lambda directory: (directory / CONFIG).write_bytes(data)


def config_replaced(old: str, new: str) -> Break:
    """Replaces text in the config, for content that a JSON writer would not write."""

    def broken(directory: Path) -> None:
        text = (directory / CONFIG).read_text()
        assert old in text
        (directory / CONFIG).write_text(text.replace(old, new))

    return broken


def weights(change: Callable[[bytes], bytes]) -> Break:
    """Changes the bytes of the weights file."""

    def broken(directory: Path) -> None:
        path = directory / WEIGHTS
        path.write_bytes(change(path.read_bytes()))

    return broken


def tensors(change: Callable[[Tensors], Tensors]) -> Break:
    """Writes other tensors as a valid file."""

    def broken(directory: Path) -> None:
        save_file(change(load_file(directory / WEIGHTS)), directory / WEIGHTS)

    return broken


def each(change: Callable[[torch.Tensor], torch.Tensor], part: str = "") -> Break:
    """Changes each tensor that has `part` in its name."""
    return tensors(
        lambda given: {
            key: change(tensor).contiguous() if part in key else tensor for key, tensor in given.items()
        }
    )


def header(change: Callable[[dict[str, Any]], object]) -> Break:
    """Changes the header of the weights file, and corrects its length."""

    def changed(data: bytes) -> bytes:
        (length,) = struct.unpack_from("<Q", data)
        found = json.loads(data[8 : 8 + length])
        change(found)
        text = json.dumps(found).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return weights(changed)
