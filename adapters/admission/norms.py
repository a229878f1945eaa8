"""Reads the weights of an adapter pair by pair, and checks that their norms are finite and not too large.

A NaN or infinity in the output of an adapter would enter the engine's KV cache and corrupt the answers of
other requests. So the factors are checked as the engine holds them: in the serving dtype, lora_B times its
scaling.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.tensors import TensorPair
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import LoraModule
from lora_compose.adapters.peft.config import AdapterConfig
from lora_compose.adapters.peft.dora import row_norms, row_scale

MAX_NORM = 1e6
"""Trained factors have Frobenius norms below a few thousand. Above this, activations may overflow."""


class _Weights(Protocol):
    def get_tensor(self, name: str) -> torch.Tensor: ...


def peak(
    path: Path, pairs: Iterable[TensorPair], config: AdapterConfig, base: BaseShapes, dtype: torch.dtype
) -> float:
    """The largest |scaling| * ||lora_B||_F * ||lora_A||_F over `pairs`. It bounds each delta's spectral norm.

    With DoRA (see `peft.dora`) it bounds (s - 1) * W + s * c B A. The norm of a bias is added. 0 means that
    the adapter changes nothing. Only one module is in memory at a time.
    Raises AdapterRejected `non_finite_weights`, `corrupt_weights`, and `unsupported_feature` if the base's
    weights are needed and cannot be read.
    """
    base_weights = BaseWeights(base.directory)
    try:
        with safe_open(path, framework="pt", device="cpu") as weights:
            return max(
                _module_norm(weights, pair, config.scaling_of(pair.module), base_weights, dtype)
                for pair in pairs
            )
    except SafetensorError as error:
        message = "The safetensors library cannot read adapter_model.safetensors. Save or upload it again."
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, path.name) from error


def _module_norm(
    weights: _Weights, pair: TensorPair, scaling: float, base: BaseWeights, dtype: torch.dtype
) -> float:
    norm = _pair_norm(weights, pair, scaling, dtype)
    if pair.bias is not None:
        norm += _norm(weights.get_tensor(pair.bias), pair.bias, scaling, dtype)
    if pair.magnitude is None:
        return norm
    _norm(weights.get_tensor(pair.magnitude), pair.magnitude, 1.0, dtype)
    factors = weights.get_tensor(pair.lora_A), weights.get_tensor(pair.lora_B)
    module = LoraModule(*factors, scaling, magnitude=weights.get_tensor(pair.magnitude))
    norms = row_norms(module, base.rows(pair.module, module.shape))
    scale = row_scale(pair.module, module, norms)
    change = (scale - 1).abs()
    # |W| of a row is at most |W + c B A| + |c B A|.
    return float(scale.abs().max() + change.max()) * norm + float((change * norms).norm())


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
            name, f"contains NaN or infinity (dtype {tensor.dtype}). The training of this adapter diverged"
        )
    served = tensor.to(dtype)
    if not _finite(served):
        raise _would_overflow(name, f"a value is too large for {dtype}, the dtype of the base")
    if scaling != 1.0:
        served = served * scaling
    norm = float(torch.linalg.vector_norm(served, dtype=torch.float32))
    if not norm <= MAX_NORM:
        raise _would_overflow(
            name, f"its norm times the scaling {scaling:.3g} is {norm:.3g}, above {MAX_NORM:g}"
        )
    return norm


def _finite(tensor: torch.Tensor) -> bool:
    # NaN and infinity make the sum of squares NaN or infinite. Only then each element is checked.
    total = torch.linalg.vector_norm(tensor, dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _would_overflow(name: str, reason: str) -> AdapterRejected:
    return _refusal(name, f"would overflow: {reason}. Check lora_alpha and the training")


def _refusal(name: str, reason: str) -> AdapterRejected:
    return AdapterRejected(Code.NON_FINITE_WEIGHTS, f"Tensor {name!r:.200} {reason}.", name[:200])
