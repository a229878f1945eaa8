"""PEFT directories written without our own code, with the float64 deltas that they represent."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Deltas = dict[str, NDArray[np.float64]]

SHAPES = {
    "model.layers.0.self_attn.q_proj": (12, 10),
    "model.layers.0.mlp.down_proj": (9, 14),
    "model.layers.1.self_attn.q_proj": (12, 10),
}
"""(d_out, d_in) of the modules of an imaginary base."""


@dataclass(frozen=True)
class Written:
    directory: Path
    deltas: Deltas


def write_peft(
    directory: Path,
    seed: int,
    rank: int = 3,
    alpha: float = 5.0,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    **config: Any,
) -> Written:
    """A random adapter for every module in `shapes`. `config` is written to adapter_config.json unchanged."""
    directory.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    tensors, deltas = {}, {}
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    for name, (d_out, d_in) in shapes.items():
        lora_A = draw.standard_normal((rank, d_in)).astype(np.float32)
        lora_B = draw.standard_normal((d_out, rank)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_A.weight"] = lora_A
        tensors[f"base_model.model.{name}.lora_B.weight"] = lora_B
        deltas[name] = scaling * lora_B.astype(np.float64) @ lora_A.astype(np.float64)
    save_file(tensors, directory / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj", "down_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(fields | config))
    return Written(directory, deltas)


def read_peft(directory: Path) -> Deltas:
    """The deltas of a directory in which all modules of one rank have the scaling lora_alpha / r."""
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    assert config["rank_pattern"] == config["alpha_pattern"]
    tensors = load_file(directory / "adapter_model.safetensors")
    return {
        key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): tensors[
            key.replace("lora_A", "lora_B")
        ].astype(np.float64)
        @ lora_A.astype(np.float64)
        for key, lora_A in tensors.items()
        if "lora_A" in key
    }


def weighted_sum(*terms: tuple[Deltas, float]) -> Deltas:
    """The weighted sum of each module. A module that a term does not have counts as zero."""
    names = {name for deltas, _ in terms for name in deltas}
    return {
        name: sum((deltas[name] * w for deltas, w in terms if name in deltas), np.zeros(())) for name in names
    }


def difference(left: Deltas, right: Deltas) -> float:
    """Frobenius norm of left - right over all modules."""
    assert left.keys() == right.keys()
    return math.sqrt(sum(float(np.sum((left[name] - right[name]) ** 2)) for name in left))


def norm(deltas: Deltas) -> float:
    return math.sqrt(sum(float(np.sum(delta**2)) for delta in deltas.values()))
