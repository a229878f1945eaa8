"""PEFT adapter directories to `Lora` and back.

Reading takes each module's rank and scaling from `adapter_config.py`, which refuses what is not a plain LoRA.
Writing folds the scaling into lora_B, so that lora_alpha equals r everywhere, and gives the same bytes for
the same adapter. Nothing is checked against a base here: that is `admission.py`.

An adapter in memory: for each module of the base that it changes, two thin factors and a scaling.

The delta a module adds to its weight is scaling * lora_B @ lora_A. Files are read and written in
`peft_format.py`; combining adapters is in `methods.py` and `merge.py`.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig, read_config
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.peft.module_matching import ModulePatterns


@dataclass(frozen=True, eq=False)
class LoraModule:
    """What one adapter adds to one linear layer, in the dtype it was stored in."""

    lora_A: Tensor
    """(r, d_in)"""
    lora_B: Tensor
    """(d_out, r)"""
    scaling: float
    """lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA."""

    @property
    def rank(self) -> int:
        return self.lora_A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the weight it changes."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    def delta(self) -> Tensor:
        """The true delta scaling * lora_B @ lora_A, (d_out, d_in) in float32."""
        return (self.lora_B.float() * self.scaling) @ self.lora_A.float()

    def digest(self) -> bytes:
        """Identity of the content: equal values give equal digests, whatever file or dtype they came in."""
        content = hashlib.sha256(repr((self.shape, self.rank, self.scaling)).encode())
        for factor in (self.lora_A, self.lora_B):
            content.update(factor.to(torch.float32).contiguous().numpy().data)
        return content.digest()


@dataclass(frozen=True, eq=False)
class Lora:
    """An adapter: its modules by the base's own names, such as "model.layers.0.self_attn.q_proj"."""

    modules: dict[str, LoraModule]

    @property
    def rank(self) -> int:
        """The largest rank of any module: what a serving slot must hold."""
        return max(module.rank for module in self.modules.values())


PREFIX = "base_model.model."


def open_adapter(directory: Path) -> Lora:
    """Read a PEFT directory, each module's scaling resolved. AdapterRejected unless a plain, whole LoRA."""
    config = read_config(directory)
    pairs = _pair(_read_tensors(directory / WEIGHTS_FILE))
    return Lora({name: _module(config, name, pairs[name]) for name in sorted(pairs)})


def write_adapter(lora: Lora, directory: Path, base_model_name_or_path: str) -> None:
    """Write a PEFT directory of float32 factors with scaling 1, byte for byte the same every time."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, module in lora.modules.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = module.lora_A.float().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = (module.lora_B.float() * module.scaling).contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    text = json.dumps(_config_of(lora, base_model_name_or_path), indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise AdapterRejected(Code.MISSING_WEIGHTS, f"there is no {WEIGHTS_FILE}") from error
    except SafetensorError as error:
        raise AdapterRejected(
            Code.CORRUPT_WEIGHTS, f"{WEIGHTS_FILE} is not a whole safetensors file: {error}"
        ) from error
    if not tensors:
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, f"{WEIGHTS_FILE} holds no tensors")
    return tensors


def _pair(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module name -> {"A": lora_A, "B": lora_B}; every tensor must be half of such a pair."""
    pairs: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", key)
        if match is None:
            raise AdapterRejected(
                Code.UNKNOWN_MODULE, f"{key!r:.120} is not a lora_A or lora_B weight of a linear layer"
            )
        if tensor.dim() != 2 or not tensor.is_floating_point():
            raise AdapterRejected(
                Code.CORRUPT_WEIGHTS, f"{key!r:.120} is not a matrix of floating-point numbers"
            )
        pairs[match[1]][match[2]] = tensor
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise AdapterRejected(Code.CORRUPT_WEIGHTS, f"{name!r:.120} has only one of lora_A and lora_B")
    return pairs


def _module(config: AdapterConfig, name: str, pair: Mapping[str, Tensor]) -> LoraModule:
    lora_A, lora_B = pair["A"], pair["B"]
    rank = config.rank_of(name)
    if not lora_A.shape[0] == lora_B.shape[1] == rank:
        message = (
            f"{name}: rank {rank} in the config, {lora_A.shape[0]} in lora_A, {lora_B.shape[1]} in lora_B"
        )
        raise AdapterRejected(Code.RANK_MISMATCH, message, "r")
    return LoraModule(lora_A, lora_B, config.scaling_of(name))


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

    Short and plain, because readers match every key against every module. Where PEFT's rule would then match
    another module too ("a.b" is the tail of "x.a.b" and, its dot matching anything, "a_b"), keys are exact.
    """
    ranks: dict[str, set[int]] = defaultdict(set)
    for name, module in lora.modules.items():
        ranks[_tail(name)].add(module.rank)
    below = {name: module.rank for name, module in sorted(lora.modules.items()) if module.rank < lora.rank}
    plain = {
        _plain(_tail(name) if len(ranks[_tail(name)]) == 1 else name): rank for name, rank in below.items()
    }
    keys = ModulePatterns(sorted(plain))
    for name, module in lora.modules.items():
        if plain.get(keys.key_for(name) or "", lora.rank) != module.rank:
            return {f"^{re.escape(name)}": rank for name, rank in below.items()}
    return plain


def _tail(name: str) -> str:
    return name.rpartition(".")[2]


def _plain(name: str) -> str:
    """Escaped but for the dots and dashes that ordinary names have."""
    return re.escape(name).replace(r"\.", ".").replace(r"\-", "-")
