"""Checks that the files of a model directory are whole. Of weights it reads the headers. Imports no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lora_compose.adapters.errors import CommandCode, LoraComposeError

INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
LFS_POINTER = b"version https://git-lfs"
AGAIN = "Download the missing or incomplete files again"


def check_model_files(model: str, vllm_args: Sequence[str]) -> None:
    """Raise LoraComposeError if `model` is a directory with missing or damaged files.

    With --load-format vLLM may need other weight files or none, so then they are not checked."""
    directory = Path(model)
    if not directory.is_dir():
        return
    problem = config_problem(directory)
    if problem is None and not any(word.startswith("--load") for word in vllm_args):
        problem = weights_problem(directory)
    if problem is not None:
        raise LoraComposeError(CommandCode.NO_MODEL, f"--model {model}: {problem}. {AGAIN}.")


def config_problem(directory: Path) -> str | None:
    """What is wrong with config.json, as a sentence part; None if nothing is, or without the file."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return f"config.json cannot be read: {error}"
    return None if isinstance(config, dict) else "config.json is not a JSON object"


def weights_problem(directory: Path) -> str | None:
    """What is wrong with the weight files, as a sentence part; None if nothing is."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        listed = (directory / INDEX).is_file()
        if listed or not any(path for kind in OTHER_WEIGHTS for path in directory.glob(kind)):
            return "there are no *.safetensors files"
        return None
    tensors: dict[str, set[str]] = {}
    for path in files:
        try:
            tensors[path.name] = tensor_names(path)
        except LoraComposeError as error:
            return error.message
    try:
        missing = _missing_from_index(directory, tensors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{INDEX} is damaged"
    if missing:
        return f"{INDEX} lists {len(missing)} tensors that are missing, for example {missing[0]}"
    return None


def tensor_names(path: Path) -> set[str]:
    """The names in a safetensors file. Raises LoraComposeError if it is damaged: its size is checked too."""
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        with path.open("rb") as raw:
            is_pointer = raw.read(len(LFS_POINTER)) == LFS_POINTER
        what = (
            "is a Git LFS pointer (`git lfs pull` fetches the file)" if is_pointer else f"is damaged: {error}"
        )
        raise LoraComposeError(CommandCode.NO_MODEL, f"{path.name} {what}") from error


def _missing_from_index(directory: Path, tensors: dict[str, set[str]]) -> list[str]:
    index = directory / INDEX
    if not index.is_file():
        return []
    placed: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return sorted(f"{name} in {file}" for name, file in placed.items() if name not in tensors.get(file, ()))
