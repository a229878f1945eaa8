"""Checks an adapter with PEFT and safetensors only, so that admission can be compared with them."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lora_compose.adapters.peft.files import WEIGHTS_FILE

PART = re.compile(r"\.lora_[AB]\.weight$")


class PeftOracle:
    """Loads adapters onto the real base, one after another."""

    def __init__(self, base: Path, max_lora_rank: int) -> None:
        self._directory = base
        self._base = self._load()
        self._keys = list(self._base.state_dict())
        self._max_lora_rank = max_lora_rank

    def _load(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self._directory, dtype=torch.float32)

    def why_not(self, directory: Path) -> str | None:
        """The reason why the adapter must not be served. None if it is valid."""
        try:
            tensors = load_file(directory / WEIGHTS_FILE)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns of modules the adapter leaves out
                model = PeftModel.from_pretrained(self._base, str(directory))
        except Exception as error:  # noqa: BLE001  many libraries raise many exceptions
            self._base = self._load()  # a part of the adapter may be on the base already
            return f"{type(error).__name__}: {error}"[:200]
        try:
            return self._wrong(model, tensors)
        finally:
            self._base = model.unload()
            if list(self._base.state_dict()) != self._keys:  # PEFT does not unwrap every module
                self._base = self._load()

    def _wrong(self, model: PeftModel, tensors: dict[str, torch.Tensor]) -> str | None:
        loaded = {name.replace(".default", ""): value for name, value in model.state_dict().items()}
        for key, tensor in tensors.items():
            if key not in loaded:
                return f"{key} is not a key of the model"
            if not torch.equal(loaded[key], tensor.to(loaded[key].dtype)):
                return f"{key} was changed by loading"
        if alone := {PART.sub("", key) for key in tensors if _other(key) not in tensors}:
            return f"lora_A or lora_B is missing for {sorted(alone)[0]}"
        return self._wrong_numbers(model)

    def _wrong_numbers(self, model: PeftModel) -> str | None:
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer) and "default" in layer.lora_A:
                factor = layer.lora_A["default"].weight
                if factor.shape[0] > self._max_lora_rank:
                    return f"{name} has rank {factor.shape[0]}"
                if not torch.isfinite(layer.get_delta_weight("default")).all():
                    return f"the delta of {name} is not finite"
        return None


def _other(key: str) -> str:
    return key.replace("lora_A", "lora_B") if "lora_A" in key else key.replace("lora_B", "lora_A")
