"""Converts adapters of other kinds to LoRA with `peft.convert_to_lora`, and pickled LoRAs to safetensors.

The error is measured on the layers themselves. Each layer is applied to the unit vectors, with and without
the adapter. The difference is the true delta of the layer, however its kind computes it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_compose.adapters.errors import AdapterRejected, Code, CommandCode, LoraComposeError
from lora_compose.adapters.export import check_output, moved_to
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.peft.files import CONFIG_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE
from lora_compose.adapters.safe_files import open_regular
from lora_compose.adapters.strict_json import NotStrictJson, parse_object

if TYPE_CHECKING:
    import torch

PICKLE_FILE = "adapter_model.bin"
PREFIX = "base_model.model."
MAX_DEPTH = 16


@dataclass(frozen=True)
class ConvertedModule:
    """`error` is ‖Δ − B·A‖_F / ‖Δ‖_F, and `norm` is ‖Δ‖_F."""

    name: str
    rank: int
    error: float
    norm: float


@dataclass(frozen=True)
class Conversion:
    """What was converted and what was lost."""

    kind: str
    """`peft_type` of the original."""
    modules: tuple[ConvertedModule, ...]

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((module.rank for module in self.modules), default=0)

    @property
    def error(self) -> float:
        """The relative error of all modules together, √(Σ‖Δ − B·A‖² / Σ‖Δ‖²)."""
        total = sum(module.norm**2 for module in self.modules)
        lost = sum((module.error * module.norm) ** 2 for module in self.modules)
        return float((lost / total) ** 0.5) if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        modules = {m.name: {"rank": m.rank, "error": m.error} for m in self.modules}
        return {"kind": self.kind, "rank": self.rank, "error": self.error, "modules": modules}


def read_kind(directory: Path) -> tuple[str, dict[str, Any]]:
    """`peft_type` and the config. Raises AdapterRejected missing_config or bad_adapter_config."""
    with open_regular(directory / CONFIG_FILE, missing=Code.MISSING_CONFIG) as file:
        data = file.read(MAX_CONFIG_BYTES)
    try:
        raw = parse_object(data, MAX_DEPTH)
    except NotStrictJson as error:
        raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, f"{CONFIG_FILE}: {error}.") from error
    kind = raw.get("peft_type")
    if not isinstance(kind, str):
        message = f"{CONFIG_FILE}: peft_type is missing. `convert` reads only adapters that PEFT wrote."
        raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, message, "peft_type")
    return kind, raw


def convert(
    directory: Path,
    output: Path,
    model: str | None = None,
    rank: float = 0.999,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Conversion:
    """Convert the adapter in `directory`, and write an ordinary PEFT LoRA to `output`.

    `rank` is a whole number for every module, or a float: the smallest ranks that keep this part of the
    squared singular values. `model` is the base, by default the one that the config names. A LoRA in a pickle
    needs no base. Raises Conflict("output_exists"), LoraComposeError("not_convertible"), AdapterRejected."""
    check_output(output, overwrite)
    kind, raw = read_kind(directory)
    if kind == "LORA":
        return _repacked(directory, output)
    base = model or raw.get("base_model_name_or_path")
    if not base:
        raise _refusal("The config names no base. Give it with --model.")
    base = resolve(base)
    with _errors_of_peft(kind):
        layers = _Layers.load(directory, base, kind)
        factors = layers.convert(rank, show_progress)
    return _written(layers, factors, output, base)


def _repacked(directory: Path, output: Path) -> Conversion:
    """Write the tensors of a pickle as safetensors. Only tensors are unpickled, never objects."""
    import torch
    from safetensors.torch import save_file

    if not (directory / PICKLE_FILE).exists():
        raise _refusal(f"The adapter is a LoRA already, and it has no {PICKLE_FILE}. It can be registered.")
    try:
        tensors = torch.load(directory / PICKLE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many exceptions for a damaged or hostile pickle
        raise AdapterRejected(
            Code.CORRUPT_WEIGHTS, f"{PICKLE_FILE} is damaged, or it has more than tensors in it.", PICKLE_FILE
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, f"{PICKLE_FILE} is not a dict of tensors.", PICKLE_FILE)
    with moved_to(output) as built:
        whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole, built / WEIGHTS_FILE, metadata={"format": "pt"})
        shutil.copyfile(directory / CONFIG_FILE, built / CONFIG_FILE)
    return Conversion("LORA", ())


@dataclass(frozen=True)
class _Layers:
    """A base with the adapter on it."""

    model: Any
    kind: str

    @classmethod
    def load(cls, directory: Path, base: str, kind: str) -> "_Layers":
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
        model = PeftModel.from_pretrained(plain, str(directory)).eval()
        found = cls(model, kind)
        layers = dict(found.adapted())
        if not layers or not all(layer.supports_lora_conversion() for layer in layers.values()):
            raise _refusal(f"PEFT cannot convert the kind {kind} to LoRA. Train a LoRA instead.")
        return found

    def adapted(self) -> Iterator[tuple[str, Any]]:
        """The layers with the adapter, by their names in the base."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in self.model.named_modules():
            if isinstance(module, BaseTunerLayer):
                yield name.removeprefix(PREFIX), module

    def convert(self, rank: float, show_progress: bool) -> dict[str, tuple["torch.Tensor", "torch.Tensor"]]:
        """(lora_A, lora_B) of each layer, with scaling 1."""
        from peft import convert_to_lora

        config, state = convert_to_lora(self.model, rank, progressbar=show_progress)
        if config.modules_to_save:
            raise _refusal(f"The adapter replaces whole modules: {sorted(config.modules_to_save)}.")
        names = dict(self.adapted())
        keys = {name: f"{PREFIX}{name}" for name in names if f"{PREFIX}{name}.lora_A.weight" in state}
        return {n: (state[f"{k}.lora_A.weight"], state[f"{k}.lora_B.weight"]) for n, k in keys.items()}

    def measured(
        self, factors: dict[str, tuple["torch.Tensor", "torch.Tensor"]]
    ) -> Iterator[ConvertedModule]:
        import torch

        for name, layer in self.adapted():
            with torch.no_grad():
                base = layer.get_base_layer()
                units = torch.eye(base.in_features)
                delta = (layer(units) - base(units)).T
                lora_A, lora_B = factors.get(name, (torch.zeros(0, 1), torch.zeros(1, 0)))
                left = delta - lora_B.float() @ lora_A.float() if name in factors else delta
            norm = float(delta.norm())
            yield ConvertedModule(name, lora_A.shape[0], float(left.norm()) / norm if norm else 0.0, norm)


def _written(
    layers: _Layers, factors: dict[str, tuple["torch.Tensor", "torch.Tensor"]], output: Path, base: str
) -> Conversion:
    from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, write_adapter

    modules = tuple(layers.measured(factors))
    with moved_to(output) as built:
        write_adapter(
            Lora({name: LoraModule(*pair, scaling=1.0) for name, pair in factors.items()}), built, base
        )
    return Conversion(layers.kind, modules)


@contextmanager
def _errors_of_peft(kind: str) -> Iterator[None]:
    """One line instead of a traceback of PEFT or transformers, which raise these for wrong input."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise _refusal(f"The {kind} adapter cannot be loaded or converted: {line:.300}") from error


def _refusal(message: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.NOT_CONVERTIBLE, message)
