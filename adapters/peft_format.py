"""PEFT adapter directories to `Lora` and back.

Reading applies PEFT's own rules for rank_pattern, alpha_pattern and rsLoRA, and refuses whatever is not a
plain LoRA, because its delta would not be scaling * B @ A. Writing folds the scaling into lora_B, so that
lora_alpha equals r everywhere, and gives the same bytes for the same adapter. Checks against a base are in
`admission.py`.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.errors import AdapterRejected
from adapters.lora import Lora, LoraModule

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."

PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights, beside booleans, that leave the base's own weights as they were."""

OFF_IN_A_PLAIN_LORA = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "kasa_config",
    "monteclora_config",
    "arrow_config",
)
"""Fields of PEFT's LoraConfig that, when set, make an adapter more than scaling * B @ A on linear layers."""


def open_adapter(directory: Path) -> Lora:
    """Read a PEFT directory, each module's scaling resolved. AdapterRejected unless a plain, whole LoRA."""
    config = _read_config(directory / CONFIG_NAME)
    refuse_unsupported(config)
    pairs = _pair(_read_tensors(directory / WEIGHTS_NAME))
    return Lora({name: _module(config, name, pairs[name]) for name in sorted(pairs)})


def write_adapter(lora: Lora, directory: Path, base_model_name_or_path: str) -> None:
    """Write a PEFT directory of float32 factors with scaling 1, byte for byte the same every time."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, module in lora.modules.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = module.lora_A.float().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = (module.lora_B.float() * module.scaling).contiguous()
    save_file(tensors, directory / WEIGHTS_NAME, metadata={"format": "pt"})
    text = json.dumps(_config_of(lora, base_model_name_or_path), indent=2, sort_keys=True)
    (directory / CONFIG_NAME).write_text(text, encoding="utf-8")


def refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Raise AdapterRejected("unsupported_feature") unless it is a plain LoRA on an unchanged base."""
    if config.get("peft_type") != "LORA":
        raise _unsupported("peft_type", config.get("peft_type"))
    if config.get("bias", "none") != "none":
        raise _unsupported("bias", config["bias"])
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in PLAIN_INITS:
        raise _unsupported("init_lora_weights", init)
    for field in OFF_IN_A_PLAIN_LORA:
        if config.get(field):
            raise _unsupported(field, config[field])


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """The rank PEFT gives `module`: the first key of rank_pattern that matches it, else r."""
    rank = _matched(config, "rank_pattern", module, config.get("r", 8))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterRejected(
            "bad_rank", f"the rank of {module} is {rank!r:.40}, not a positive integer", "r"
        )
    return rank


def scaling_of(config: Mapping[str, Any], module: str) -> float:
    """lora_alpha / r of `module`, or lora_alpha / sqrt(r) for rsLoRA (2312.03732), by PEFT's matching."""
    alpha = _matched(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not 0 <= alpha < 1e300:  # NaN and integers too large for a float fail this as well
        message = f"lora_alpha of {module} is {alpha!r:.40}, not a finite number of at least 0"
        raise AdapterRejected("bad_alpha", message, "lora_alpha")
    rank = rank_of(config, module)
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matched(config: Mapping[str, Any], field: str, module: str, default: object) -> Any:
    patterns = config.get(field) or {}
    if not isinstance(patterns, dict):
        raise AdapterRejected("bad_adapter_config", f"{field} is not an object", field)
    return next((value for key, value in patterns.items() if _pattern(key).match(module)), default)


@lru_cache(maxsize=4096)
def _pattern(key: str) -> re.Pattern[str]:
    """PEFT's rule (`get_pattern_key`): the key is a regular expression for a dotted tail of a module's name.

    The key comes from a stranger's file, so one that could backtrack for hours is refused: at most three
    quantifiers, and none on a group.
    """
    if re.search(r"\)[*+?{]", key) or len(re.findall(r"[*+?{]", key)) > 3 or len(key) > 4096:
        raise AdapterRejected(
            "bad_adapter_config", f"the pattern {key!r:.80} is too involved to match safely"
        )
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except re.error as error:
        raise AdapterRejected(
            "bad_adapter_config", f"the pattern {key!r:.80} is malformed: {error}"
        ) from error


def _unsupported(field: str, value: object) -> AdapterRejected:
    return AdapterRejected(
        "unsupported_feature", f"{field}={value!r:.80} is not supported: not a plain LoRA", field
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterRejected("missing_config", f"there is no {CONFIG_NAME}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterRejected("bad_adapter_config", f"{CONFIG_NAME} is not readable JSON") from error
    if not isinstance(config, dict):
        raise AdapterRejected("bad_adapter_config", f"{CONFIG_NAME} is not a JSON object")
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise AdapterRejected("missing_weights", f"there is no {WEIGHTS_NAME}") from error
    except SafetensorError as error:
        raise AdapterRejected(
            "corrupt_weights", f"{WEIGHTS_NAME} is not a whole safetensors file: {error}"
        ) from error
    if not tensors:
        raise AdapterRejected("corrupt_weights", f"{WEIGHTS_NAME} holds no tensors")
    return tensors


def _pair(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module name -> {"A": lora_A, "B": lora_B}; every tensor must be half of such a pair."""
    pairs: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", key)
        if match is None:
            raise AdapterRejected(
                "unknown_module", f"{key!r:.120} is not a lora_A or lora_B weight of a linear layer"
            )
        if tensor.dim() != 2 or not tensor.is_floating_point():
            raise AdapterRejected(
                "corrupt_weights", f"{key!r:.120} is not a matrix of floating-point numbers"
            )
        pairs[match[1]][match[2]] = tensor
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise AdapterRejected("corrupt_weights", f"{name!r:.120} has only one of lora_A and lora_B")
    return pairs


def _module(config: Mapping[str, Any], name: str, pair: Mapping[str, Tensor]) -> LoraModule:
    lora_A, lora_B = pair["A"], pair["B"]
    rank = rank_of(config, name)
    if not lora_A.shape[0] == lora_B.shape[1] == rank:
        message = (
            f"{name}: rank {rank} in the config, {lora_A.shape[0]} in lora_A, {lora_B.shape[1]} in lora_B"
        )
        raise AdapterRejected("rank_mismatch", message, "r")
    return LoraModule(lora_A, lora_B, scaling_of(config, name))


def _config_of(lora: Lora, base_model_name_or_path: str) -> dict[str, Any]:
    other_ranks = _rank_pattern(lora)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name_or_path,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.rank,
        "rank_pattern": other_ranks,
        "alpha_pattern": other_ranks,
        "target_modules": sorted(lora.modules),
        "modules_to_save": None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _rank_pattern(lora: Lora) -> dict[str, int]:
    """Keys for the modules below the largest rank: "q_proj" where that says it all, else the whole name.

    Short where possible, because readers match every key against every module.
    """
    ranks: dict[str, set[int]] = defaultdict(set)
    for name, module in lora.modules.items():
        ranks[name.rpartition(".")[2]].add(module.rank)
    pattern: dict[str, int] = {}
    for name, module in lora.modules.items():
        tail = name.rpartition(".")[2]
        if module.rank != lora.rank:
            pattern[re.escape(tail) if len(ranks[tail]) == 1 else f"^{re.escape(name)}"] = module.rank
    return dict(sorted(pattern.items()))
