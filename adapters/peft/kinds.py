"""The kinds of adapters in `peft_type`, the initialisations of LoRA, and fields that other trainers write.

The names are those of PEFT 0.21. A test compares the convertible kinds with PEFT's own check.
"""

import re
from typing import Any

CONVERTIBLE = frozenset({
    "C3A", "DELORA", "FOURIERFT", "GRALORA", "LOHA", "LOKR", "MISS", "PSOFT", "RANDLORA",
    "TINYLORA", "UNILORA", "VBLORA", "VERA", "WAVEFT",
})  # fmt: skip
"""The kinds that `peft.convert_to_lora` converts to LoRA."""

_PROMPTS = frozenset({
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT",
    "CARTRIDGE",
})  # fmt: skip
_SEVERAL = frozenset({"XLORA", "POLY"})
_OTHERS = frozenset({
    "ADALORA", "ADAMSS",
    "BEFT", "BOFT", "DEFT", "FROD", "GLORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "OFT",
    "OSF", "PEANUT", "PVERA", "ROAD", "SHADOW", "SHIRA", "SUPERTUNING", "TRAINABLE_TOKENS",
})  # fmt: skip
KINDS = CONVERTIBLE | _PROMPTS | _SEVERAL | _OTHERS | {"LORA"}
"""Every `peft_type` of PEFT 0.21."""


def reason_against(peft_type: object) -> str | None:
    """The reason why adapters of this kind are not served, and what to do. None for "LORA"."""
    if peft_type == "LORA":
        return None
    if isinstance(peft_type, str) and peft_type.upper() == "LORA":
        return 'PEFT writes "LORA" in capitals and loads nothing else'
    if peft_type in CONVERTIBLE:
        return "it is not LoRA. Convert it with `lora-compose adapters convert DIR OUT --model BASE`"
    if peft_type in _PROMPTS:
        return "it adds virtual tokens to the prompt, which no low-rank sum can do. Train a LoRA"
    if peft_type in _SEVERAL:
        return "it chooses among several LoRAs for each token or task. Register its LoRAs one by one"
    if peft_type in _OTHERS:
        return "it is not LoRA, and PEFT cannot convert it to LoRA. Train a LoRA"
    return 'PEFT 0.21 has no such kind. Only "LORA" adapters are served'


# Initialisations that PEFT computes again when it loads the adapter, and that change the base's weights.
_CHANGES_BASE = re.compile(r"pissa(_niter_[0-9]+)?|(?i:olora)|corda|loftq|lora_ga")
# The others. PEFT reads some of them in any case.
_HARMLESS = re.compile(r"|eva|orthogonal|(?i:gaussian|mica)")


def reason_against_init(value: object) -> str | None:
    """The reason why adapters with this `init_lora_weights` are not served. None if they are."""
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, str) or not (_HARMLESS.fullmatch(value) or _CHANGES_BASE.fullmatch(value)):
        return "PEFT knows no such initialisation. If the adapter is trained, write true"
    if _CHANGES_BASE.fullmatch(value):
        return (
            "this initialisation changes the weights of the base, which are not in the adapter; save the "
            "adapter with PEFT's path_initial_model_for_weight_conversion"
        )
    return None


# Notes of other tools (model cards, ms-swift, unsloth, transformers). No tool computes anything from them.
_NOTES = frozenset({
    "tags", "license", "language", "library_name", "pipeline_tag", "datasets", "metrics", "model-index",
    "architectures", "widget", "base_model", "swift_version", "unsloth_version", "unsloth_fixed", "unsloth",
    "axolotl_version", "llamafactory_version", "training_args", "trl_version", "transformers_version",
    "framework_versions", "created_at", "_commit_hash", "_name_or_path", "lora_dtype", "lorap_lr_ratio",
    "lorap_emb_lr", "quantization_config", "model_type", "torch_dtype", "dtype", "is_trainable", "comment",
    "_comment", "description", "notes", "name", "version", "author",
})  # fmt: skip


def may_change_results(field: str, value: Any) -> bool:
    """Whether a field that PEFT 0.21 does not have could be a feature of a newer PEFT that is switched on.

    A switch that is off, a number and a string are at most settings of a feature, and alone do nothing."""
    return field not in _NOTES and (value is True or bool(value and isinstance(value, dict | list)))
