"""Reads an adapter's weights, pair by pair, and bounds what they can do to an activation.

A NaN or infinity in an adapter's output enters the engine's KV cache and spoils other requests' answers, so
the factors are checked as the engine will hold them, cast to the serving dtype, lora_B times its scaling.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from lora_compose.adapters.admission.tensors import TensorPair
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig

MAX_NORM = 1e6
"""Trained factors have Frobenius norms below a few thousand; beyond this activations soon overflow."""


class _Weights(Protocol):
    def get_tensor(self, name: str) -> torch.Tensor: ...


def peak(path: Path, pairs: Iterable[TensorPair], config: AdapterConfig, dtype: torch.dtype) -> float:
    """The largest |scaling| * ||lora_B||_F * ||lora_A||_F over `pairs`: no delta has a greater spectral norm.

    0 means that the adapter changes nothing. Holds one pair in memory at a time.
    Raises AdapterRejected `non_finite_weights`, `corrupt_weights`.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as weights:
            return max(_pair_norm(weights, pair, config.scaling_of(pair.module), dtype) for pair in pairs)
    except SafetensorError as error:
        message = (
            "adapter_model.safetensors cannot be read by the safetensors library; save or upload it again."
        )
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, path.name) from error


def _pair_norm(weights: _Weights, pair: TensorPair, scaling: float, dtype: torch.dtype) -> float:
    norm_a = _norm(weights.get_tensor(pair.lora_A), pair.lora_A, 1.0, dtype)
    norm_b = _norm(weights.get_tensor(pair.lora_B), pair.lora_B, scaling, dtype)
    if norm_a * norm_b > MAX_NORM:
        reason = f"scaling * ||lora_B|| * ||lora_A|| is {norm_a * norm_b:.3g}, above {MAX_NORM:g}"
        raise _would_overflow(pair.lora_B, reason)
    return norm_a * norm_b


def _norm(tensor: torch.Tensor, name: str, scaling: float, dtype: torch.dtype) -> float:
    """Frobenius norm of scaling * tensor as the serving dtype holds it."""
    if not _finite(tensor):
        raise _refusal(
            name, f"holds NaN or infinity; the training of this adapter diverged (dtype {tensor.dtype})"
        )
    served = tensor.to(dtype)
    if not _finite(served):
        raise _would_overflow(name, f"a value is too large for {dtype}, in which the base is served")
    if scaling != 1.0:
        served = served * scaling
    norm = float(torch.linalg.vector_norm(served, dtype=torch.float32))
    if not norm <= MAX_NORM:
        raise _would_overflow(
            name, f"its norm times the scaling {scaling:.3g} is {norm:.3g}, above {MAX_NORM:g}"
        )
    return norm


def _finite(tensor: torch.Tensor) -> bool:
    # NaN and infinity both survive the sum of squares; only a suspicious sum needs the element-wise look.
    total = torch.linalg.vector_norm(tensor, dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _would_overflow(name: str, reason: str) -> AdapterRejected:
    return _refusal(name, f"would overflow: {reason}; check lora_alpha and the training")


def _refusal(name: str, reason: str) -> AdapterRejected:
    return AdapterRejected(Code.NON_FINITE_WEIGHTS, f"Tensor {name!r:.200} {reason}.", name[:200])
