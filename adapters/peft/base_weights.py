"""Reads the weights of a base's linear layers from its checkpoint, a few rows at a time.

DoRA needs them: its scale depends on the norms of the base's rows. A module's tensor is `<module>.weight` of
shape (d_out, d_in), in any of the safetensors files. Only floating-point tensors count, because the values of
a quantized checkpoint are not the weights.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_compose.adapters.errors import AdapterRejected, Code

FLOATING = ("F32", "F16", "BF16")
ROWS_AT_ONCE = 1024
"""At 8192 inputs, that many rows in float32 take 32 MiB."""


def checkpoint_files(directory: Path) -> Sequence[Path]:
    """The checkpoint's safetensors files. Raises FileNotFoundError if it has no such files."""
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError("the checkpoint has no safetensors files")
    return paths


class BaseWeights:
    """The weights of a checkpoint. The files are opened only while rows are read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def _tied_to(self) -> str | None:
        """The input embedding's tensor, if the output head has its weight."""
        config = json.loads((self._directory / "config.json").read_bytes())
        names = [name for name in self.floating if re.fullmatch(r"(.*\.)?embed_tokens\.weight", name)]
        return names[0] if config.get("tie_word_embeddings") and len(names) == 1 else None

    def _tensor_of(self, module: str) -> str:
        name = f"{module}.weight"
        is_tied = name not in self.floating and module.rpartition(".")[2] == "lm_head"
        return self._tied_to or name if is_tied else name

    @cached_property
    def floating(self) -> dict[str, Path]:
        """The file of each floating-point tensor. Raises FileNotFoundError if there are no files."""
        found: dict[str, Path] = {}
        for path in checkpoint_files(self._directory):
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                found |= {name: path for name in names if file.get_slice(name).get_dtype() in FLOATING}
        return found

    def has(self, module: str) -> bool:
        """Whether the checkpoint has the module's weight as floating-point numbers."""
        try:
            return self._tensor_of(module) in self.floating
        except (OSError, ValueError, SafetensorError):
            return False

    def rows(self, module: str, shape: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
        """The rows of a module's weight, in order and in float32: `(which, (n, d_in))`.

        Raises AdapterRejected("unsupported_feature") if the checkpoint has no such weight of this shape."""
        path, name = self._place_of(module)
        with safe_open(path, framework="pt") as file:
            weight = file.get_slice(name)
            if tuple(weight.get_shape()) != shape:
                raise _no_weight(module, f"has shape {list(weight.get_shape())} and not {list(shape)}")
            for start in range(0, shape[0], ROWS_AT_ONCE):
                which = slice(start, min(start + ROWS_AT_ONCE, shape[0]))
                yield which, weight[which].float()

    def weight(self, module: str, shape: tuple[int, int]) -> Tensor:
        """The whole weight, (d_out, d_in) in float32. Raises like `rows`."""
        return torch.cat([rows for _, rows in self.rows(module, shape)])

    def _place_of(self, module: str) -> tuple[Path, str]:
        """The file and the name of a module's weight."""
        try:
            name = self._tensor_of(module)
            path = self.floating.get(name)
        except (OSError, ValueError, SafetensorError) as error:
            raise _no_weight(module, f"cannot be read: {error!s:.200}") from error
        if path is None:
            raise _no_weight(module, "is not in the checkpoint as floating-point numbers")
        return path, name


def _no_weight(module: str, reason: str) -> AdapterRejected:
    return AdapterRejected(
        Code.UNSUPPORTED_FEATURE,
        f"DoRA needs the weights of the base. The weight of {module!r:.200} {reason}. Serve an unquantized "
        "checkpoint of this base, or train without DoRA.",
        "use_dora",
    )
