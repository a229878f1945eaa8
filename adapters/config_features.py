"""Names what an adapter_config.json asks for that a plain sum `scaling * B @ A` cannot give.

Follows LoraConfig of PEFT 0.21 field by field. A field PEFT itself ignores when it runs a trained adapter
(dropout, an initialisation that leaves the base alone, how modules were chosen) is no reason to refuse.
"""

from typing import Any

from adapters.errors import AdapterRejected

# field -> (values that ask for nothing besides None, False and empties; why anything else is refused)
_PLAIN: tuple[Any, ...] = (None, False, [], {})
_UNSUPPORTED: dict[str, str] = {
    "use_dora": "DoRA rescales weights by a learned magnitude, which is no low-rank sum; train without it",
    "modules_to_save": "it replaces whole modules of the base; train with LoRA on linear layers only",
    "lora_bias": "it adds a bias vector, which is not served; train with lora_bias=false",
    "alora_invocation_tokens": "activated LoRA applies to some tokens only; train an ordinary LoRA",
    "use_qalora": "QALoRA pools the inputs of lora_A; train an ordinary LoRA",
    "monteclora_config": "MonteCLoRA adds samplers of its own; merge it into an ordinary LoRA first",
    "velora_config": "VeLoRA saves tensors of its own; train an ordinary LoRA",
    "kasa_config": "KaSA changes the base's own weights; train an ordinary LoRA",
    "arrow_config": "Arrow routes between adapters token by token; register its adapters one by one",
    "use_bdlora": "block-diagonal LoRA has factors of another shape; train an ordinary LoRA",
    "layer_replication": "it repeats layers of the base; serve a base that has those layers",
    "trainable_token_indices": "it changes token embeddings; train with LoRA on linear layers only",
    "target_parameters": "it adapts bare parameters (fused experts); target linear modules instead",
    "megatron_config": "Megatron's parallel layers are not served; convert the adapter to plain PEFT",
}

# To PEFT an empty one of these is no less of a feature than a full one.
_OFF_ONLY_AS_NONE = frozenset({
    "arrow_config", "kasa_config", "monteclora_config", "trainable_token_indices", "use_bdlora",
    "velora_config",
})  # fmt: skip

# Initialisations that leave the base's weights alone, so that a trained adapter is a plain LoRA.
_HARMLESS_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})

# Every other field of LoraConfig, with those of older releases: none changes what a trained adapter computes.
_KNOWN = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout",
    "fan_in_fan_out", "bias", "use_rslora", "init_lora_weights", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", "enable_lora",
    "merge_weights",
})  # fmt: skip


def refuse_unsupported(raw: dict[str, Any]) -> None:
    """Raises AdapterRejected `unsupported_feature` naming the field, what it does and what to do instead."""
    if raw.get("peft_type") != "LORA":
        _refuse("peft_type", raw.get("peft_type"), 'only "LORA" adapters are served')
    if raw.get("bias", "none") != "none":
        _refuse("bias", raw["bias"], 'it trains biases of the base; train with bias="none"')
    for field, reason in _UNSUPPORTED.items():
        if raw.get(field) not in ((None,) if field in _OFF_ONLY_AS_NONE else _PLAIN):
            _refuse(field, raw[field], reason)
    _check_init(raw.get("init_lora_weights", True))
    for field, value in raw.items():
        # A switch this release has never heard of may change anything; a stray number or note does not.
        if field not in _KNOWN | _UNSUPPORTED.keys() and (
            value is True or (value and isinstance(value, dict | list))
        ):
            _refuse(field, value, "this release does not know the field; remove it if it changes nothing")


def unknown_fields(raw: dict[str, Any]) -> tuple[str, ...]:
    """Fields of `raw` that PEFT 0.21 does not have, in order."""
    return tuple(field for field in raw if field not in _KNOWN | _UNSUPPORTED.keys())


def _check_init(value: object) -> None:
    if (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, str) and value.lower() in _HARMLESS_INITS)
    ):
        return
    reason = (
        "this initialisation changes the base's own weights, so the adapter alone is not what was trained; "
        "save it with PEFT's path_initial_model_for_weight_conversion"
    )
    _refuse("init_lora_weights", value, reason)


def _refuse(field: str, value: object, reason: str) -> None:
    raise AdapterRejected(
        "unsupported_feature", f"adapter_config.json: {field} = {value!r:.80}: {reason}.", field
    )
