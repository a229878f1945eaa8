"""Folds a stack into the weights of a checkpoint while vLLM loads them: `W ← W + Σ wᵢsᵢBᵢAᵢ`, in float32,
rounded once. With DoRA the rows of W are scaled as well.

Biases of adapters are not folded, because many layers have no bias. They stay work for each row.
Tensors go one at a time from the checkpoint through vLLM's own weight reload, which packs, shards and
quantizes them. Restoring reads the checkpoint again and never subtracts.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from lora_compose.adapters.peft.base_weights import BaseWeights, checkpoint_files
from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.server.engine.spec import Component
from lora_compose.server.engine.worker.stacking import AdapterReader, Stack, StackedModule

SMALLEST_SCALE = 1 / 32
"""A residual divides by the fused scale of each row. Below this, it would lose more than 5 bits."""


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


def folded(weight: torch.Tensor, module: StackedModule) -> torch.Tensor:
    """`(1 + row_change) * W + B A` for W `(d_out, d_in)`: float32 sum, one rounding to W's dtype."""
    scaled = weight.float()
    if module.row_change is not None:
        scaled = scaled * (1 + module.row_change)[:, None]
    return torch.addmm(scaled, module.lora_B.float(), module.lora_A.float()).to(weight.dtype)


def without(stack: Stack, kept: Collection[str]) -> Stack:
    """The stack without the modules whose names end in one of `kept`. They are not folded."""
    return {name: module for name, module in stack.items() if name.rpartition(".")[2] not in kept}


def why_not_foldable(
    directory: Path, components: Sequence[Component], kept: Collection[str] = ()
) -> str | None:
    """The reason why these cannot be folded into the checkpoint, as a sentence part; None if they can.

    Modules whose names end in one of `kept` are not folded, so they are ignored here."""
    base = BaseWeights(directory)
    loras = [open_adapter(Path(component.directory)) for component in components]
    try:
        missing = sorted({
            name
            for lora in loras
            for name in lora.modules
            if f"{name}.weight" not in base.floating and name.rpartition(".")[2] not in kept
        })
    except FileNotFoundError as error:
        return str(error)
    if missing:
        return f"the checkpoint has no floating-point weight for {missing[0]} ({len(missing)} such modules)"
    if not any(lora.has_dora for lora in loras):
        return None
    stack = without(AdapterReader(base).load_stack(components, torch.float32), kept)
    for name, module in stack.items():
        if module.row_change is not None and (1 + module.row_change).abs().min() < SMALLEST_SCALE:
            return f"its DoRA scales make a row of {name} nearly zero, so other adapters could not be served"
    return None
