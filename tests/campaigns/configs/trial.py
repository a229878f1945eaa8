"""Writes an adapter for a config with PEFT itself, and compares what PEFT and this product make of it."""

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE

Config = Mapping[str, Any]
EVERY_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPT = torch.tensor([[5, 17, 40, 2, 9, 33, 21, 8, 60, 4]])
LIMITS = AdmissionLimits(max_lora_rank=64, dtype=torch.float32)
LARGEST_DIFFERENCE = 1e-5
"""Of the log probabilities of all next tokens of PROMPT. Weights are in float32, sums in float64."""


@dataclass(frozen=True)
class Verdict:
    """What PEFT and this product say about one adapter directory."""

    admitted: bool
    code: str | None
    """The code of the refusal."""
    message: str
    param: str | None
    warnings: tuple[str, ...]
    peft_loads: bool
    peft_says: str
    """PEFT's error if it does not load the adapter."""
    peft_change: float | None
    """Largest difference of log probabilities between PEFT and the plain base, if PEFT loads it."""
    difference: float | None
    """Largest difference of log probabilities between PEFT and base + our deltas, if both take it."""


class Trial:
    """Holds the base once. PEFT changes a model in place, so each use gets the original weights back."""

    def __init__(self, base: Path, name: str) -> None:
        self.shapes = BaseShapes.of(base, name)
        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    @contextmanager
    def _base(self) -> Iterator[Any]:
        """A copy of the base. PEFT replaces modules of it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield copy.deepcopy(self._model)

    def write(self, directory: Path, config: Config) -> None:
        """Write `config` as it is, and the weights that PEFT makes for it: every factor is random.

        If PEFT cannot make an adapter of it, the weights are those of a plain LoRA with the same rank."""
        directory.mkdir(parents=True, exist_ok=True)
        try:
            tensors = self._tensors(config)
        except Exception:  # noqa: BLE001  PEFT raises many exceptions
            tensors = self._tensors(_plain(config))
        save_file(tensors, directory / WEIGHTS_FILE)
        (directory / CONFIG_FILE).write_text(json.dumps(dict(config)))

    def _tensors(self, config: Config) -> dict[str, Tensor]:
        with self._base() as model:
            made = PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]].from_peft_type(**_json(config))
            made.inference_mode = False
            peft = get_peft_model(model, made)
            draw = torch.Generator().manual_seed(0)
            for name, parameter in peft.named_parameters():
                if "lora_" in name:
                    parameter.data = torch.randn(parameter.shape, generator=draw) * 0.05
            state = get_peft_model_state_dict(peft, save_embedding_layers=False)
            return {name: tensor.contiguous().clone() for name, tensor in state.items()}

    def judge(self, directory: Path) -> Verdict:
        """Load the directory with PEFT, admit it here, and compare if both take it."""
        says, theirs, change = "", None, None
        try:
            theirs = self._peft(directory)
            change = _distance(theirs, self._sum(None))
        except Exception as error:  # noqa: BLE001  PEFT raises many exceptions
            says = f"{type(error).__name__}: {error}"
        loads = theirs is not None
        try:
            admission = admit(directory, self.shapes, LIMITS)
        except AdapterRejected as refused:
            return Verdict(
                False, str(refused.code), refused.message, refused.param, (), loads, says, change, None
            )
        difference = _distance(theirs, self._sum(directory)) if theirs is not None else None
        return Verdict(True, None, "", None, admission.warnings, loads, says, change, difference)

    @torch.no_grad()
    def _peft(self, directory: Path) -> Tensor:
        with self._base() as model:
            # PEFT gives modules without weights their initial values.
            torch.manual_seed(0)
            loaded = PeftModel.from_pretrained(model, str(directory)).eval()
            return _log_probabilities(loaded.base_model.model.double())

    @torch.no_grad()
    def _sum(self, directory: Path | None) -> Tensor:
        """Of the base with the deltas that this product reads from a directory."""
        with self._base() as model:
            model.double()
            modules = {} if directory is None else open_adapter(directory).modules
            for name, module in modules.items():
                model.get_submodule(name).weight += module.delta()
            return _log_probabilities(model)


def _log_probabilities(model: Any) -> Tensor:
    found: Tensor = model(PROMPT).logits.log_softmax(-1)
    return found


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _json(config: Config) -> dict[str, Any]:
    """A deep copy, because PEFT changes what it gets."""
    copied: dict[str, Any] = json.loads(json.dumps(dict(config)))
    return copied


def _plain(config: Config) -> dict[str, Any]:
    rank, targets = config.get("r"), config.get("target_modules")
    known = [name for name in targets if name in EVERY_LINEAR] if isinstance(targets, list) else []
    return {
        "peft_type": "LORA",
        "r": rank if type(rank) is int and 0 < rank < 1024 else 8,
        "target_modules": known or list(EVERY_LINEAR),
    }
