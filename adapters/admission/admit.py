"""Decides whether an adapter directory may be served, before the engine reads any of its files.

It reads only adapter_config.json and adapter_model.safetensors. It never opens a pickle or any other file.
Cheap checks come first, so a wrong config or shape is refused without reading weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from lora_compose.adapters.admission.base_model import BaseShapes, layer_of
from lora_compose.adapters.admission.default_targets import with_default_targets
from lora_compose.adapters.admission.embeddings import check_copies, check_tied_factors, copies_in, is_tied
from lora_compose.adapters.admission.norms import peak
from lora_compose.adapters.admission.recognition import check_directory
from lora_compose.adapters.admission.targets import check_other_targets, missing_tensors
from lora_compose.adapters.admission.tensors import TensorPair, pair_tensors, read_header
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig, read_config, unknown_fields
from lora_compose.adapters.peft.files import MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, WEIGHTS_FILE
from lora_compose.adapters.peft.module_matching import BadPattern, TargetedModules
from lora_compose.adapters.peft.tensor_names import parse_name


@dataclass(frozen=True)
class AdmissionLimits:
    """The limits that this server sets for all adapters."""

    max_lora_rank: int
    dtype: torch.dtype
    """The dtype of the base. The weights must be finite in it."""
    max_bytes: int = MAX_WEIGHTS_BYTES
    max_config_bytes: int = MAX_CONFIG_BYTES
    strict: bool = False
    """Refuse another base's name and unknown config fields, instead of warning about them."""
    modules: frozenset[str] | None = None
    """The last parts of the names of the modules that the engine adapts; None: every linear layer."""
    embeddings: frozenset[str] | None = None
    """The same for the input embedding and the output head; None: there is no engine that sets a limit."""
    refused_fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of the config that the engine cannot serve ("use_dora", "lora_bias"), and why not."""

    def __post_init__(self) -> None:
        if self.max_lora_rank < 1:
            raise ValueError(f"max_lora_rank ({self.max_lora_rank}) must be at least 1")


@dataclass(frozen=True)
class Admission:
    """The facts about an adapter that may be served."""

    rank: int
    """The largest rank of any module."""
    parameters: int
    coverage: dict[str, Any]
    """JSON-able: how many layers and linears are adapted, how many the base has, and which modules."""
    warnings: tuple[str, ...]
    """Each is "code: meaning", such as "zero_effect: ..."."""
    peak: float
    """Maximum over modules of |scaling| * ||lora_B||_F * ||lora_A||_F, an upper bound for the deltas."""
    base_model_name_or_path: str | None


def admit(
    directory: Path, base: BaseShapes, limits: AdmissionLimits, trained_on: str | None = None
) -> Admission:
    """Check the adapter in `directory` against `base`. Raises AdapterRejected.

    `trained_on` is the fingerprint of the base that it was trained on, if the client knows it."""
    check_directory(directory)
    config = with_default_targets(read_config(directory, limits.max_config_bytes), base.model_type)
    _check_rank(config, limits)
    _check_refused_fields(config, limits)
    check_other_targets(config, base)
    warnings = [*_base_warnings(config, base, limits, trained_on), *_field_warnings(config, limits)]
    header = read_header(directory / WEIGHTS_FILE, limits.max_bytes)
    copies = copies_in(header, base)
    pairs = pair_tensors({name: header[name] for name in header if name not in copies}, config, base)
    _check_targets(pairs, config, base)
    _check_modules(pairs, limits)
    _check_embeddings(pairs, base, limits)
    highest = peak(directory / WEIGHTS_FILE, pairs, config, base, limits.dtype)
    check_tied_factors(directory / WEIGHTS_FILE, pairs, config, base)
    warnings += check_copies(directory / WEIGHTS_FILE, copies, header, base)
    warnings += missing_tensors(pairs, config, base)
    warnings += _name_warnings(pairs)
    if highest == 0:
        warnings.append("zero_effect: every delta is zero, so the adapter does not change the base")
    return Admission(
        rank=max(pair.rank for pair in pairs),
        parameters=sum(pair.parameters for pair in pairs),
        coverage=_coverage(pairs, base),
        warnings=tuple(warnings),
        peak=highest,
        base_model_name_or_path=config.base_model_name_or_path,
    )


def _name_warnings(pairs: Sequence[TensorPair]) -> list[str]:
    adapter = next(name.adapter for pair in pairs if (name := parse_name(pair.lora_A)))
    if adapter is None:
        return []
    text = f"the tensors have the name of an adapter, {adapter!r:.80}, as in the state dict of a model"
    return [f"adapter_name: {text}. It is left out. PEFT itself ignores such tensors"]


def _check_rank(config: AdapterConfig, limits: AdmissionLimits) -> None:
    rank = max([config.r, *config.rank_pattern.values()])
    if rank > limits.max_lora_rank:
        message = (
            f"adapter_config.json: rank {rank} is above max_lora_rank {limits.max_lora_rank} of this server. "
            "Start the server with a higher one, or truncate the adapter (method svd)."
        )
        raise AdapterRejected(Code.RANK_TOO_LARGE, message, "r")


def _check_refused_fields(config: AdapterConfig, limits: AdmissionLimits) -> None:
    for name, reason in limits.refused_fields.items():
        if config.raw.get(name):
            message = f"adapter_config.json: {name} = true is not served here: {reason}. Train without it."
            raise AdapterRejected(Code.UNSUPPORTED_FEATURE, message, name)


def _base_warnings(
    config: AdapterConfig, base: BaseShapes, limits: AdmissionLimits, trained_on: str | None
) -> list[str]:
    if trained_on is not None:  # it decides, because two bases may have one name
        return _fingerprint_warnings(base, limits, trained_on)
    named = config.base_model_name_or_path
    # Only the last components are compared, because paths to one model differ, and paths are private.
    if not named or _last(named) in {_last(base.name), *base.other_names}:
        return []
    bases = f"{_last(named)!r:.200}, and the base of this server is {_last(base.name)!r}"
    text = f"the adapter was trained on {bases}"
    if limits.strict:
        message = f"adapter_config.json: {text}. Serve that base, or correct base_model_name_or_path."
        raise AdapterRejected(Code.WRONG_BASE, message, "base_model_name_or_path")
    return [f"other_base_name: {text}; the shapes fit"]


def _fingerprint_warnings(base: BaseShapes, limits: AdmissionLimits, trained_on: str) -> list[str]:
    if trained_on == base.fingerprint:
        return []
    text = (
        f"the adapter was trained on weights with the fingerprint {trained_on[:12]!a}, and the weights of "
        f"this server's base have {base.fingerprint[:12]!r}"
    )
    if limits.strict:
        message = f"lineage: {text}. Serve that base, or train the adapter again on this one."
        raise AdapterRejected(Code.WRONG_BASE, message, "lineage")
    return [f"other_base: {text}; the shapes fit"]


def check_shapes(directory: Path, base: BaseShapes, limits: AdmissionLimits) -> None:
    """Check that an adapter that was admitted for another base fits `base`. Reads no weights.

    Raises AdapterRejected."""
    config = read_config(directory, limits.max_config_bytes)
    _check_rank(config, limits)
    pairs = pair_tensors(read_header(directory / WEIGHTS_FILE, limits.max_bytes), config, base)
    _check_modules(pairs, limits)


def _last(name: str) -> str:
    return PureWindowsPath(name).name


def _field_warnings(config: AdapterConfig, limits: AdmissionLimits) -> list[str]:
    unknown = unknown_fields(config.raw)
    if not unknown:
        return []
    text = f"{len(unknown)} unknown fields, the first is {unknown[0]!r:.80}"
    if limits.strict:
        raise AdapterRejected(
            Code.UNSUPPORTED_FEATURE, f"adapter_config.json has {text}. Remove them.", unknown[0]
        )
    return [f"unknown_fields: adapter_config.json has {text}; they are ignored"]


def _check_targets(pairs: Sequence[TensorPair], config: AdapterConfig, base: BaseShapes) -> None:
    """Refuse tensors of a module that the config does not target, because PEFT would ignore them silently."""
    targets = TargetedModules.of(config.raw)
    ends = {*base.heads, *base.embeddings}
    for pair in pairs:
        # If PEFT ties the head, the config names only the input embedding.
        named = next(iter(base.embeddings)) if pair.module in base.heads and is_tied(config, base) else None
        try:
            field = targets.excluding_field(named or pair.module, in_all_linear=pair.module not in ends)
        except BadPattern as error:
            raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, f"adapter_config.json: {error}.") from error
        if field is not None:
            message = (
                f"The weights adapt {pair.module}, but {field} in adapter_config.json excludes it. "
                "Correct the config."
            )
            raise AdapterRejected(Code.UNKNOWN_MODULE, message, field)


def _check_modules(pairs: Sequence[TensorPair], limits: AdmissionLimits) -> None:
    """Refuse tensors of a module that --lora-target-modules leaves out. The engine would refuse them."""
    for pair in pairs:
        if limits.modules is not None and pair.module.rpartition(".")[2] not in limits.modules:
            message = (
                f"The weights adapt {pair.module}, and this server applies LoRA only to "
                f"{', '.join(sorted(limits.modules))}. Start it with other --lora-target-modules, or without."
            )
            raise AdapterRejected(Code.UNKNOWN_MODULE, message, "target_modules")


def _check_embeddings(pairs: Sequence[TensorPair], base: BaseShapes, limits: AdmissionLimits) -> None:
    """Refuse tensors of the head or the input embedding if the engine does not adapt it."""
    if limits.embeddings is None:
        return
    ends = [pair.module for pair in pairs if pair.module not in base.linears]
    for module in ends:
        last = module.rpartition(".")[2]
        if last not in limits.embeddings:
            message = (
                f"The weights adapt {module}. This server applies LoRA to {last} only on CPUs, and only if "
                "vLLM's class of the base lists it in embedding_modules. Train without it."
            )
            raise AdapterRejected(Code.UNSUPPORTED_FEATURE, message, "target_modules")


def _coverage(pairs: Sequence[TensorPair], base: BaseShapes) -> dict[str, Any]:
    layers = {layer_of(pair.module) for pair in pairs} - {None}
    return {
        "layers": len(layers),
        "layers_total": len(base.layers),
        "modules": sorted({pair.module.rpartition(".")[2] for pair in pairs}),
        "linears": sum(pair.module in base.linears for pair in pairs),
        "linears_total": len(base.linears),
    }
