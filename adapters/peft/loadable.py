"""Values with which PEFT 0.21 does not load an adapter, although they do not change what it computes."""

from typing import Any

DEFAULT_RANK = 8
"""PEFT's value for a config without `r`."""
TASK_TYPES = (None, "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")


def why_not_loadable(raw: dict[str, Any]) -> tuple[str, str] | None:
    """The field of a config whose types are checked, and the reason. None if PEFT loads it."""
    if raw.get("task_type") not in TASK_TYPES:
        return "task_type", f"task_type {raw['task_type']!r:.80} is unknown to PEFT"
    if not raw.get("lora_dropout", 0) <= 1:
        return "lora_dropout", "lora_dropout must be at most 1"
    rank = raw.get("r", DEFAULT_RANK)
    if raw.get("init_lora_weights") == "orthogonal" and isinstance(rank, int) and rank % 2:
        return "r", "PEFT needs an even rank for init_lora_weights = 'orthogonal'"
    if (eva := raw.get("eva_config")) and not _is_eva(eva):
        return "eva_config", "PEFT needs rho of at least 1 and tau between 0 and 1"
    return _why_no_bias(raw) or _why_no_targets(raw)


def _why_no_bias(raw: dict[str, Any]) -> tuple[str, str] | None:
    if raw.get("lora_bias") and raw.get("use_dora"):
        return "lora_bias", "lora_bias cannot be used with use_dora"
    if raw.get("lora_bias") and not isinstance(raw.get("init_lora_weights", True), bool):
        return "lora_bias", "lora_bias can only be used if init_lora_weights is true or false"
    return None


def _is_eva(settings: dict[str, Any]) -> bool:
    rho, tau = settings.get("rho", 2.0), settings.get("tau", 0.99)
    return isinstance(rho, int | float) and isinstance(tau, int | float) and rho >= 1 and 0 <= tau <= 1


def _why_no_targets(raw: dict[str, Any]) -> tuple[str, str] | None:
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    if targets is not None and not targets:
        return "target_modules", "target_modules must name at least one module"
    if isinstance(layers, list) and not all(type(layer) is int for layer in layers):
        return "layers_to_transform", "layers_to_transform must contain only whole numbers"
    for name in ("layers_to_transform", "layers_pattern"):
        if isinstance(targets, str) and raw.get(name) is not None:
            return name, f"{name} cannot be used if target_modules is one pattern"
    if raw.get("layers_pattern") and layers is None:
        return "layers_pattern", "layers_pattern can only be used with layers_to_transform"
    return None
