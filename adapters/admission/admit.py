"""Decides whether an adapter directory may be served, before an engine sees one byte of it.

Reads adapter_config.json and adapter_model.safetensors and nothing else: no pickle is ever opened, and other
files are not looked at. Cheap checks come first: a wrong config or shape costs no reading of weights.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from lora_compose.adapters.admission.base_model import BaseShapes, layer_of
from lora_compose.adapters.admission.norms import peak
from lora_compose.adapters.admission.tensors import TensorPair, pair_tensors, read_header
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig, read_config, unknown_fields
from lora_compose.adapters.peft.files import MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, WEIGHTS_FILE
from lora_compose.adapters.peft.module_matching import BadPattern, TargetedModules

_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.ckpt")


@dataclass(frozen=True)
class AdmissionLimits:
    """What this server accepts of any adapter."""

    max_lora_rank: int
    dtype: torch.dtype
    """The dtype the base is served in, in which the weights have to stay finite."""
    max_bytes: int = MAX_WEIGHTS_BYTES
    max_config_bytes: int = MAX_CONFIG_BYTES
    strict: bool = False
    """Refuse what is only warned of otherwise: another base's name, config fields nobody knows."""

    def __post_init__(self) -> None:
        if self.max_lora_rank < 1:
            raise ValueError(f"max_lora_rank ({self.max_lora_rank}) must be at least 1")


@dataclass(frozen=True)
class Admission:
    """What was found in an adapter that may be served."""

    rank: int
    """The largest rank of any module."""
    parameters: int
    coverage: dict[str, Any]
    """JSON-able: how many layers and linears of the base are adapted, of how many, and which modules."""
    warnings: tuple[str, ...]
    """Each "code: what it means", such as "zero_effect: ..."."""
    peak: float
    """max over modules of |scaling| * ||lora_B||_F * ||lora_A||_F; it bounds the delta."""
    base_model_name_or_path: str | None


def admit(directory: Path, base: BaseShapes, limits: AdmissionLimits) -> Admission:
    """Check the adapter in `directory` against `base`. Raises AdapterRejected; its code says why."""
    config = read_config(directory, limits.max_config_bytes)
    _check_rank(config, limits)
    warnings = [*_base_warnings(config, base, limits), *_field_warnings(config, limits)]
    refuse_pickle(directory)
    header = read_header(directory / WEIGHTS_FILE, limits.max_bytes)
    pairs = pair_tensors(header, config, base)
    _check_targets(pairs, config)
    highest = peak(directory / WEIGHTS_FILE, pairs, config, limits.dtype)
    if highest == 0:
        warnings.append("zero_effect: every delta is zero, so it answers as the base does")
    return Admission(
        rank=max(pair.rank for pair in pairs),
        parameters=sum(pair.parameters for pair in pairs),
        coverage=_coverage(pairs, base),
        warnings=tuple(warnings),
        peak=highest,
        base_model_name_or_path=config.base_model_name_or_path,
    )


def _check_rank(config: AdapterConfig, limits: AdmissionLimits) -> None:
    rank = max([config.r, *config.rank_pattern.values()])
    if rank > limits.max_lora_rank:
        message = (
            f"adapter_config.json: rank {rank} is above max_lora_rank {limits.max_lora_rank}; "
            "start the server with a higher one or truncate the adapter (method svd)."
        )
        raise AdapterRejected(Code.RANK_TOO_LARGE, message, "r")


def _base_warnings(config: AdapterConfig, base: BaseShapes, limits: AdmissionLimits) -> list[str]:
    named = config.base_model_name_or_path
    # Last components only: one model has as many paths as it has users, and a path is nobody's business.
    if not named or _last(named) == _last(base.name):
        return []
    text = f"it was trained on {_last(named)!r:.200} and this server's base is {_last(base.name)!r}"
    if limits.strict:
        message = f"adapter_config.json: {text}; serve that base, or correct base_model_name_or_path."
        raise AdapterRejected(Code.WRONG_BASE, message, "base_model_name_or_path")
    return [f"other_base_name: {text}; the shapes fit"]


def _last(name: str) -> str:
    return PureWindowsPath(name).name


def _field_warnings(config: AdapterConfig, limits: AdmissionLimits) -> list[str]:
    unknown = unknown_fields(config.raw)
    if not unknown:
        return []
    text = f"{len(unknown)} fields nobody knows, the first {unknown[0]!r:.80}"
    if limits.strict:
        raise AdapterRejected(
            Code.UNSUPPORTED_FEATURE, f"adapter_config.json has {text}; remove them.", unknown[0]
        )
    return [f"unknown_fields: adapter_config.json has {text}; they are ignored"]


def refuse_pickle(directory: Path | int) -> None:
    """Raises AdapterRejected("pickle_refused") for a directory whose weights are only a pickle."""
    with os.scandir(directory) as entries:
        names = {entry.name for entry in entries}
    if WEIGHTS_FILE in names:
        return
    for name in _PICKLES:
        if name in names:
            raise AdapterRejected(
                Code.PICKLE_REFUSED,
                f"{name} is a pickle, which can run code and is never opened. "
                f"Save it as {WEIGHTS_FILE} instead.",
                name,
            )


def _check_targets(pairs: Sequence[TensorPair], config: AdapterConfig) -> None:
    """PEFT would leave out, without a word, the tensors of a module that the config does not target."""
    targets = TargetedModules.of(config.raw)
    for pair in pairs:
        try:
            field = targets.field_against(pair.module)
        except BadPattern as error:
            raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, f"adapter_config.json: {error}.") from error
        if field is not None:
            message = f"The weights adapt {pair.module}, which {field} leaves out; correct the config."
            raise AdapterRejected(Code.UNKNOWN_MODULE, message, field)


def _coverage(pairs: Sequence[TensorPair], base: BaseShapes) -> dict[str, Any]:
    layers = {layer_of(pair.module) for pair in pairs} - {None}
    return {
        "layers": len(layers),
        "layers_total": len(base.layers),
        "modules": sorted({pair.module.rpartition(".")[2] for pair in pairs}),
        "linears": len(pairs),
        "linears_total": len(base.linears),
    }
