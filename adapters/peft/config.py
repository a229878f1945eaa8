"""Reads and checks the fields of adapter_config.json that decide what an adapter computes.

It is strict: `r` = 8.5 or "8", a duplicate key and an alpha that overflows are refused, with field and value.
An engine that guesses would load such an adapter and generate nonsense. Weights are not read here.

It refuses fields that need more than the sum `scaling * B @ A`, the magnitude of DoRA and lora_bias. It
follows LoraConfig of PEFT 0.21 field by field. A field that PEFT ignores when it runs a trained adapter
(dropout, an initialisation that does not change the base, the choice of modules) is accepted.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.contents import what_config_is, whose_config
from lora_compose.adapters.peft.files import CONFIG_FILE, MAX_CONFIG_BYTES
from lora_compose.adapters.peft.kinds import may_change_results, reason_against, reason_against_init
from lora_compose.adapters.peft.loadable import DEFAULT_RANK, why_not_loadable
from lora_compose.adapters.peft.module_matching import BadPattern, ModulePatterns
from lora_compose.adapters.safe_files import open_regular
from lora_compose.adapters.strict_json import NotStrictJson, parse_object

BIASES = ("none", "all", "lora_only")
"""Which biases of the base were trained. PEFT saves them as tensors, which are refused. A base without biases
has none, and its adapter is the same with every value."""

# Values that switch a field off.
_PLAIN: tuple[Any, ...] = (None, False, [], {})
# Unsupported fields: field -> the reason to refuse any other value.
_UNSUPPORTED: dict[str, str] = {
    "modules_to_save": "it replaces whole modules of the base; train a LoRA of them (target_modules)",
    "alora_invocation_tokens": "activated LoRA applies only to some tokens; train an ordinary LoRA",
    "use_qalora": "QALoRA pools the inputs of lora_A; train an ordinary LoRA",
    "monteclora_config": "MonteCLoRA adds its own samplers; merge it into an ordinary LoRA first",
    "velora_config": "VeLoRA saves its own tensors; train an ordinary LoRA",
    "kasa_config": "KaSA changes the weights of the base; train an ordinary LoRA",
    "arrow_config": "Arrow chooses an adapter for each token; register its adapters separately",
    "use_bdlora": "block-diagonal LoRA has factors with other shapes; train an ordinary LoRA",
    "layer_replication": "it repeats layers of the base; serve a base that has these layers",
    "trainable_token_indices": "it replaces rows of the embedding; train a LoRA of embed_tokens",
    "target_parameters": "it adapts parameters such as fused experts; use target_modules for linear modules",
    "megatron_config": "Megatron's parallel layers are not served; convert the adapter to plain PEFT",
}

# PEFT switches these features on even if the value is empty.
_OFF_ONLY_AS_NONE = frozenset({
    "arrow_config", "kasa_config", "monteclora_config", "trainable_token_indices", "use_bdlora",
    "velora_config",
})  # fmt: skip

# All other fields of LoraConfig, also of older releases. They do not change what a trained adapter computes.
_KNOWN = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout",
    "fan_in_fan_out", "bias", "use_rslora", "init_lora_weights", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", "enable_lora",
    "merge_weights", "use_dora", "lora_bias",
})  # fmt: skip


UNKNOWN_FEATURE = (
    "PEFT 0.21 has no such field. It belongs to a newer PEFT or to another trainer, and it is switched on. "
    "If the weights do not depend on it, remove the field"
)


def refuse_unsupported(raw: dict[str, Any]) -> None:
    """Raises AdapterRejected `unsupported_feature` with the field, what it does and what to do instead."""
    if reason := reason_against(raw.get("peft_type")):
        _refuse("peft_type", raw.get("peft_type"), reason)
    if (bias := raw.get("bias", "none")) not in BIASES:
        _refuse("bias", bias, 'PEFT knows no such value; train with bias="none"')
    for name, reason in _UNSUPPORTED.items():
        if raw.get(name) not in ((None,) if name in _OFF_ONLY_AS_NONE else _PLAIN):
            _refuse(name, raw[name], reason)
    if reason := reason_against_init(raw.get("init_lora_weights", True)):
        _refuse("init_lora_weights", raw["init_lora_weights"], reason)
    for name in unknown_fields(raw):
        if may_change_results(name, raw[name]):
            _refuse(name, raw[name], UNKNOWN_FEATURE)


def unknown_fields(raw: dict[str, Any]) -> tuple[str, ...]:
    """The fields of `raw` that PEFT 0.21 does not have, in order."""
    return tuple(field for field in raw if field not in _KNOWN | _UNSUPPORTED.keys())


def _refuse(field: str, value: object, reason: str) -> None:
    raise AdapterRejected(
        Code.UNSUPPORTED_FEATURE, f"adapter_config.json: {field} = {value!r:.80}: {reason}.", field
    )


MAX_DEPTH = 16
MAX_RANK = 1 << 16
"""A rank above this is a typing error."""
MAX_ALPHA = 1e6
"""Real alphas are at most a few thousand. Near 1e38, scaling * B is infinite and corrupts the KV cache."""
DEFAULT_ALPHA = 8
"""PEFT's value for a config without `lora_alpha`."""

SETTINGS = (
    "eva_config", "corda_config", "lora_ga_config", "arrow_config", "loftq_config",
)  # fmt: skip


@dataclass(frozen=True)
class AdapterConfig:
    """The checked facts of adapter_config.json about the deltas: ranks >= 1, alphas finite."""

    r: int
    lora_alpha: float
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    base_model_name_or_path: str | None
    raw: dict[str, Any]
    """The whole parsed file, for fields that only checks and warnings use."""
    _ranks: ModulePatterns = field(init=False, repr=False, compare=False)
    _alphas: ModulePatterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranks", _patterns("rank_pattern", self.rank_pattern))
        object.__setattr__(self, "_alphas", _patterns("alpha_pattern", self.alpha_pattern))

    def rank_of(self, module: str) -> int:
        """Rank of `module` ("model.layers.0.self_attn.q_proj") by PEFT's rule for `rank_pattern`."""
        return self.rank_pattern.get(_key_for("rank_pattern", self._ranks, module), self.r)

    def scaling_of(self, module: str) -> float:
        """Factor of B @ A in `module`: alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732)."""
        alpha = self.alpha_pattern.get(_key_for("alpha_pattern", self._alphas, module), self.lora_alpha)
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def read_config(directory: Path, max_bytes: int = MAX_CONFIG_BYTES) -> AdapterConfig:
    """Read and check `directory`/adapter_config.json.

    Raises AdapterRejected: missing_config, not_a_regular_file, bad_adapter_config, bad_rank, bad_alpha,
    unsupported_feature.
    """
    with open_regular(directory / CONFIG_FILE, missing=Code.MISSING_CONFIG) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _bad(None, f"it has more than {max_bytes} bytes")
    try:
        raw = parse_object(data, MAX_DEPTH)
    except NotStrictJson as error:
        what = what_config_is(data)
        raise _bad(None, str(error) if what is None else f"the file {what}") from error
    return parse_config(raw)


def parse_config(raw: dict[str, Any]) -> AdapterConfig:
    """Like `read_config`, for a file that is parsed already. Raises the same errors."""
    _check_types(raw)
    refuse_unsupported(raw)
    return AdapterConfig(
        r=_rank("r", raw.get("r", DEFAULT_RANK)),
        lora_alpha=_alpha("lora_alpha", raw.get("lora_alpha", DEFAULT_ALPHA)),
        use_rslora=bool(raw.get("use_rslora")),
        use_dora=bool(raw.get("use_dora")),
        lora_bias=bool(raw.get("lora_bias")),
        rank_pattern={
            k: _rank(f"rank_pattern[{k!r:.80}]", v) for k, v in raw.get("rank_pattern", {}).items()
        },
        alpha_pattern={
            k: _alpha(f"alpha_pattern[{k!r:.80}]", v) for k, v in raw.get("alpha_pattern", {}).items()
        },
        base_model_name_or_path=raw.get("base_model_name_or_path"),
        raw=raw,
    )


def _check_types(raw: dict[str, Any]) -> None:
    types: dict[str, tuple[type, ...]] = {
        "peft_type": (str,),
        "bias": (str,),
        "use_rslora": (bool, type(None)),
        "use_dora": (bool, type(None)),
        "lora_bias": (bool, type(None)),
        "init_lora_weights": (bool, str, type(None)),
        "rank_pattern": (dict,),
        "alpha_pattern": (dict,),
        "base_model_name_or_path": (str, type(None)),
        "target_modules": (str, list, type(None)),
        "exclude_modules": (str, list, type(None)),
        "layers_to_transform": (int, list, type(None)),
        "layers_pattern": (str, list, type(None)),
        "lora_dropout": (int, float),
        "task_type": (str, type(None)),
        **dict.fromkeys(SETTINGS, (dict, type(None))),
    }
    for name, allowed in types.items():
        if name in raw and not isinstance(raw[name], allowed):
            words = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise _bad(name, f"{name} must be {words}, not {raw[name]!r:.80}")
    if "peft_type" not in raw:
        raise _bad("peft_type", f"peft_type is missing. {whose_config(raw)}")
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = raw.get(name)
        if isinstance(value, list) and not all(isinstance(element, str) for element in value):
            raise _bad(name, f"{name} must contain only strings, not {value!r:.80}")
    if found := why_not_loadable(raw):
        raise _bad(*found)


def _rank(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_RANK:
        return value
    message = f"{CONFIG_FILE}: {name} must be a whole number from 1 to {MAX_RANK}, not {_shown(value)}."
    raise AdapterRejected(Code.BAD_RANK, message, name)


def _alpha(name: str, value: object) -> float:
    # NaN fails both comparisons. An int that is too large for a float is compared exactly.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_ALPHA:
        return float(value)
    message = (
        f"{CONFIG_FILE}: {name} must be a number from {-MAX_ALPHA:g} to {MAX_ALPHA:g}, not {_shown(value)}."
    )
    raise AdapterRejected(Code.BAD_ALPHA, message, name)


def _shown(value: object) -> str:
    return "null" if value is None else f"{value!r:.40}"


def _patterns(name: str, pattern: dict[str, Any]) -> ModulePatterns:
    try:
        return ModulePatterns(pattern)
    except BadPattern as error:
        raise _bad(name, f"{name}: {error}") from error


def _key_for(name: str, patterns: ModulePatterns, module: str) -> str:
    try:
        return patterns.key_for(module) or module
    except BadPattern as error:
        raise _bad(name, f"{name}: {error}") from error


def _bad(name: str | None, reason: str) -> AdapterRejected:
    return AdapterRejected(Code.BAD_ADAPTER_CONFIG, f"{CONFIG_FILE}: {reason}.", name)
