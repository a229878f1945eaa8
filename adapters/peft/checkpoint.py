"""A LoRA adapter in memory, and reading and writing it as a PEFT directory.

For each module that the adapter changes, `Lora` has two low-rank factors and a scaling. The delta added to
the weight is scaling * lora_B @ lora_A. PEFT stores the factors of an embedding the other way round: the
delta of its (V, d) weight is scaling * (lora_embedding_B @ lora_embedding_A)^T. Reading transposes and swaps
them, so that the formula above holds for every module, and writing reverses it. A module may also have a bias
(`lora_bias`) or a magnitude (DoRA); `dora.py` says what they change.

Reading gets each module's rank and scaling from `config.py`, which refuses all other features. Writing folds
the scaling into lora_B, so lora_alpha equals r for every module, and equal adapters give equal bytes. Nothing
is checked against a base here; `admission` does that.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig, read_config
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.peft.module_matching import ModulePatterns
from lora_compose.adapters.peft.tensor_names import (
    PREFIX,
    Part,
    base_weight_of,
    factor_names,
    parse_name,
    several_adapters,
)


@dataclass(frozen=True, eq=False)
class LoraModule:
    """The factors of an adapter for one linear layer or embedding, in the dtype of the file."""

    lora_A: Tensor
    """(r, d_in). For an embedding, lora_embedding_B^T of shape (r, d)."""
    lora_B: Tensor
    """(d_out, r). For an embedding, lora_embedding_A^T of shape (V, r)."""
    scaling: float
    """lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA."""
    bias: Tensor | None = None
    """(d_out,), `lora_B.bias` of `lora_bias`: scaling * bias is added to the output."""
    magnitude: Tensor | None = None
    """(d_out,), `lora_magnitude_vector` of DoRA."""
    embedding: bool = False
    """True for an embedding, whose weight has a row for each of V tokens."""

    @property
    def rank(self) -> int:
        return self.lora_A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the weight that it changes."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    def delta(self) -> Tensor:
        """scaling * lora_B @ lora_A, of shape (d_out, d_in) in float32: the true delta without DoRA."""
        return (self.lora_B.float() * self.scaling) @ self.lora_A.float()

    def digest(self) -> bytes:
        """A digest of the values. Equal values have equal digests, even from another file or dtype."""
        content = hashlib.sha256(repr((self.shape, self.rank, self.scaling)).encode())
        for factor in (self.lora_A, self.lora_B):
            content.update(factor.to(torch.float32).contiguous().numpy().data)
        for name, vector in (("bias", self.bias), ("magnitude", self.magnitude)):
            if vector is not None:
                content.update(name.encode())
                content.update(vector.to(torch.float32).contiguous().numpy().data)
        return content.digest()


@dataclass(frozen=True, eq=False)
class Lora:
    """An adapter: its modules by their names in the base, such as "model.layers.0.self_attn.q_proj"."""

    modules: dict[str, LoraModule]

    @property
    def rank(self) -> int:
        """The largest rank of any module. A serving slot must be able to hold it."""
        return max(module.rank for module in self.modules.values())

    @property
    def has_bias(self) -> bool:
        """Whether a module has a bias."""
        return any(module.bias is not None for module in self.modules.values())

    @property
    def has_dora(self) -> bool:
        """Whether a module has a magnitude."""
        return any(module.magnitude is not None for module in self.modules.values())


def open_adapter(directory: Path) -> Lora:
    """Read a PEFT directory. Raises AdapterRejected unless it is complete: LoRA, DoRA or LoRA with biases."""
    config = read_config(directory)
    parts, embeddings = _parts(_read_tensors(directory / WEIGHTS_FILE))
    return Lora({name: _module(config, name, parts[name], name in embeddings) for name in sorted(parts)})


def write_adapter(lora: Lora, directory: Path, base_model_name_or_path: str) -> None:
    """Write a PEFT directory with float32 factors and scaling 1. Equal adapters give equal bytes.

    A module without a bias in an adapter with biases gets zeros. All modules of a DoRA adapter must have a
    magnitude, because PEFT applies DoRA to every module."""
    if (lora.has_bias or lora.has_dora) and any(module.embedding for module in lora.modules.values()):
        raise AdapterRejected(
            Code.UNSUPPORTED_FEATURE,
            "One adapter cannot have lora_bias or DoRA and a LoRA of an embedding, because PEFT applies them "
            "to every module. Use method stack.",
            "adapters",
        )
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, module in lora.modules.items():
        name_a, name_b = factor_names(name, module.embedding)
        lora_A, lora_B = module.lora_A.float(), module.lora_B.float() * module.scaling
        if module.embedding:
            lora_A, lora_B = lora_B.T, lora_A.T
        tensors[name_a], tensors[name_b] = lora_A.contiguous(), lora_B.contiguous()
        if lora.has_bias:
            bias = torch.zeros(module.shape[0]) if module.bias is None else module.bias.float()
            tensors[f"{PREFIX}{name}.lora_B.bias"] = bias * module.scaling
        if lora.has_dora:
            assert module.magnitude is not None
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = module.magnitude.float().contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    text = json.dumps(_config_of(lora, base_model_name_or_path), indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.offset_keys() if base_weight_of(name) is None]
            tensors = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise AdapterRejected(Code.MISSING_WEIGHTS, f"The adapter has no file {WEIGHTS_FILE}.") from error
    except SafetensorError as error:
        raise AdapterRejected(
            Code.CORRUPT_WEIGHTS, f"{WEIGHTS_FILE} is not a complete safetensors file: {error}."
        ) from error
    if not tensors:
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, f"{WEIGHTS_FILE} contains no tensors.")
    return tensors


def _parts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[Part, Tensor]], set[str]]:
    """Module name -> its parts as in the file, and the modules that are embeddings.

    Every tensor must be a part; A and B are required."""
    found: dict[str, dict[Part, Tensor]] = defaultdict(dict)
    embeddings: set[str] = set()
    adapters: set[str | None] = set()
    for key, tensor in tensors.items():
        name = parse_name(key)
        if name is None:
            raise AdapterRejected(
                Code.UNKNOWN_MODULE,
                f"The tensor {key!r:.120} is not a LoRA factor of a linear layer or an embedding.",
            )
        if tensor.dim() != (2 if name.part in "AB" else 1) or not tensor.is_floating_point():
            raise AdapterRejected(
                Code.CORRUPT_WEIGHTS,
                f"The tensor {key!r:.120} has not the right number of axes, or no floating-point numbers.",
            )
        adapters.add(name.adapter)
        found[name.module][name.part] = tensor
        if name.embedding:
            embeddings.add(name.module)
    if reason := several_adapters(adapters):
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, f"{WEIGHTS_FILE}: {reason}.")
    for module, parts in found.items():
        if not parts.keys() >= {"A", "B"}:
            raise AdapterRejected(
                Code.CORRUPT_WEIGHTS, f"The module {module!r:.120} has only one of lora_A and lora_B."
            )
    return found, embeddings


def _module(config: AdapterConfig, name: str, parts: Mapping[Part, Tensor], embedding: bool) -> LoraModule:
    lora_A, lora_B = parts["A"], parts["B"]
    rank = config.rank_of(name)
    if not lora_A.shape[0] == lora_B.shape[1] == rank:
        message = (
            f"The module {name} has rank {rank} in {CONFIG_FILE}, rank {lora_A.shape[0]} in lora_A and rank "
            f"{lora_B.shape[1]} in lora_B."
        )
        raise AdapterRejected(Code.RANK_MISMATCH, message, "r")
    bias, magnitude = parts.get("bias"), parts.get("magnitude")
    for field, wanted, vector in (
        ("lora_bias", config.lora_bias, bias),
        ("use_dora", config.use_dora, magnitude),
    ):
        if (vector is not None and not wanted) or (vector is not None and len(vector) != len(lora_B)):
            message = f"The module {name} has a vector of {field} that does not fit {CONFIG_FILE} or lora_B."
            raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, field)
    if config.use_dora and magnitude is None:
        message = f"{CONFIG_FILE} has use_dora, but the module {name} has no lora_magnitude_vector."
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, "use_dora")
    if embedding:
        lora_A, lora_B = lora_B.T, lora_A.T
    return LoraModule(lora_A, lora_B, config.scaling_of(name), bias, magnitude, embedding)


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
        "use_dora": lora.has_dora,
        **({"lora_bias": True} if lora.has_bias else {}),
    }


def _rank_pattern(lora: Lora) -> dict[str, int]:
    """Keys for the modules below the largest rank. A key is "q_proj" if that is enough, or the whole name.

    Keys are short and plain, because readers match every key against every module. PEFT's rule could also
    match another module: "a.b" is the end of "x.a.b", and its dot matches any character, as in "a_b". In such
    cases the keys are exact regular expressions.
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
    """`name`, escaped except for the dots and dashes of ordinary names."""
    return re.escape(name).replace(r"\.", ".").replace(r"\-", "-")
