"""A prototype that runs in vLLM's worker: fold a stack into the weights on the device, without a checkpoint.

`W ← W + sign · BA` for each slice of each linear, summed in float32 and rounded once. The product does not
fuse so yet: to restore the exact weights, it would need a copy of them.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch

from lora_compose.server.engine.spec import decode_spec
from lora_compose.server.engine.worker.runtime_weights import factors_of
from lora_compose.server.engine.worker.stacking import factors_only, rank_of

UNUSED_ID = 1 << 29


def fold_in_place(worker: Any, spec: str, sign: float) -> dict[str, float]:
    """The seconds of building the factors on the host, and of folding; the bytes of the factors."""
    manager = worker.model_runner.lora_manager
    began = time.perf_counter()
    stack = manager.reader.load_stack(decode_spec(spec), manager.lora_config.lora_dtype)
    pairs = {name: factors_only(module) for name, module in stack.items()}
    lora = manager._lora_model(UNUSED_ID, pairs, rank_of(stack))
    inner = manager._adapter_manager
    inner._create_merged_loras_inplace(lora)
    built = time.perf_counter()
    copied = 0
    with torch.inference_mode():
        for target, lora_a, lora_b in _slices(inner, lora):
            a, b = (factor.to(target.device).float() for factor in (lora_a, lora_b))
            copied += lora_a.nbytes + lora_b.nbytes
            target.copy_(torch.addmm(target.float(), b, a, alpha=sign))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    done = time.perf_counter()
    return {"build_seconds": built - began, "fold_seconds": done - built, "factor_bytes": copied}


def _slices(inner: Any, lora: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(rows of the base weight, lora_A, lora_B) of each slice that the stack changes."""
    for name, layer in inner.modules.items():
        weights = inner._get_lora_layer_weights(lora, name)
        if weights is None:
            continue
        first = 0
        for pair, width in zip(factors_of(layer, weights), layer.output_slices, strict=True):
            if pair is not None:
                yield layer.base_layer.weight[first : first + width], *pair
            first += width


def mark_fused(worker: Any, spec: str) -> None:
    """Let the LoRA manager serve residuals, as after a fusion of the product."""
    manager = worker.model_runner.lora_manager
    worker.model_runner.reset_lora_state()
    manager.fuse(decode_spec(spec))
