"""Folds a stack into the weights of a checkpoint while vLLM loads them: `W ← W + Σ wᵢsᵢBᵢAᵢ`, in float32,
rounded once.

Tensors go one at a time from the checkpoint through vLLM's own weight reload, which packs, shards and
quantizes them. Restoring reads the checkpoint again and never subtracts.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.spec import Component
from lora_compose.server.engine.worker.stacking import Stack

FLOATING = ("F32", "F16", "BF16")


def folded_checkpoint(
    directory: Path, stack: Stack, on_progress: Callable[[float], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """`(name, tensor)` of every tensor in the checkpoint. The delta is added to the stack's modules.

    `on_progress` gets the share of bytes that is done.
    """
    paths = checkpoint_files(directory)
    total, done = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  safe_open is not a mapping
                tensor = file.get_tensor(name)
                factors = stack.get(name.removesuffix(".weight"))
                yield name, tensor if factors is None else folded(tensor, factors)
                done += tensor.nbytes
                on_progress(min(1.0, done / total))


def checkpoint_files(directory: Path) -> Sequence[Path]:
    """The checkpoint's safetensors files. Raises FileNotFoundError if it has no such files."""
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError("the checkpoint has no safetensors files")
    return paths


def folded(weight: torch.Tensor, pair: PackedPair) -> torch.Tensor:
    """`W + B A` for W `(d_out, d_in)`: float32 sum, one rounding to W's dtype."""
    return torch.addmm(weight.float(), pair.lora_B.float(), pair.lora_A.float()).to(weight.dtype)


def without(stack: Stack, kept: Collection[str]) -> Stack:
    """The stack without the modules whose names end in one of `kept`. They are not folded."""
    return {name: pair for name, pair in stack.items() if name.rpartition(".")[2] not in kept}


def why_not_foldable(
    directory: Path, components: Sequence[Component], kept: Collection[str] = ()
) -> str | None:
    """The reason why these cannot be folded into the checkpoint, as a sentence part; None if they can.

    Modules whose names end in one of `kept` are not folded, and so they are no reason."""
    try:
        floating = set(_floating_weights(directory))
    except FileNotFoundError as error:
        return str(error)
    modules = {name for component in components for name in open_adapter(Path(component.directory)).modules}
    missing = sorted(
        name for name in modules if f"{name}.weight" not in floating and name.rpartition(".")[2] not in kept
    )
    if not missing:
        return None
    return f"the checkpoint has no floating-point weight for {missing[0]} ({len(missing)} such modules)"


def _floating_weights(directory: Path) -> Iterator[str]:
    for path in checkpoint_files(directory):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            yield from (name for name in names if file.get_slice(name).get_dtype() in FLOATING)
