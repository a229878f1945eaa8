"""Checks whether an adapter directory would be admitted for a base model."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.server.config import EMBEDDED_OPTIONS, ServerConfig
from lora_compose.server.cpu_defaults import defaults_for
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.doctor.model import read_config

if TYPE_CHECKING:
    from lora_compose.adapters.admission.base_model import BaseShapes

SAVE_AGAIN = "Save the adapter again with PEFT's save_pretrained, and use that directory"
OTHER_BASE = "Set --model to the base that the adapter was trained on, or train it again on this base"
ADVICE = {
    Code.BAD_ADAPTER_CONFIG: SAVE_AGAIN,
    Code.BAD_ALPHA: "Set lora_alpha and alpha_pattern in adapter_config.json to the values of the training",
    Code.BAD_RANK: "Set r and rank_pattern in adapter_config.json to the values of the training",
    Code.CORRUPT_WEIGHTS: "Copy adapter_model.safetensors again from the training output",
    Code.MISSING_CONFIG: SAVE_AGAIN,
    Code.MISSING_WEIGHTS: SAVE_AGAIN,
    Code.NON_FINITE_WEIGHTS: "The training diverged, or the weights overflow in this dtype: train it "
    "again with a lower learning rate",
    Code.NOT_A_REGULAR_FILE: "Replace the links in the directory by copies of the files (`cp -L`)",
    Code.PICKLE_REFUSED: SAVE_AGAIN,
    Code.RANK_MISMATCH: "The config and the weights belong to different adapters. " + SAVE_AGAIN,
    Code.RANK_TOO_LARGE: "Start `serve` with a higher --max-lora-rank, or reduce the adapter's rank: "
    '`lora-compose compose "svd(a,rank=R)" OUT --adapter a=DIR`',
    Code.UNKNOWN_LAYER: OTHER_BASE,
    Code.UNKNOWN_MODULE: OTHER_BASE,
    Code.UNSUPPORTED_FEATURE: "Train it as plain LoRA (rsLoRA and ranks per module are supported), or remove "
    "the field",
    Code.WEIGHTS_TOO_LARGE: "Start `serve` with a higher --max-adapter-bytes",
    Code.WRONG_BASE: OTHER_BASE,
}


@cache
def shapes_of(model: Path) -> "BaseShapes":
    """The base's shapes, read once for all adapters, with the name under which the base is served."""
    from lora_compose.adapters.admission.base_model import BaseShapes

    read_config(model)
    embedded = ServerConfig(str(model)).is_embedded
    return BaseShapes.of(model, EMBEDDED_OPTIONS[1] if embedded else model.name)


def checks(directory: Path, model: Path, max_lora_rank: int) -> list[Check]:
    section = f"adapter {directory.name}"
    return [Check(section, "admission", partial(admission, directory, model, max_lora_rank))]


def admission(directory: Path, model: Path, max_lora_rank: int) -> Finding:
    """Admit the adapter in the dtype in which the base computes on this machine."""
    import torch

    from lora_compose.adapters.admission.admit import AdmissionLimits, admit

    if not directory.is_dir():
        return fail(f"{directory} is not a directory", "Use the directory that PEFT's save_pretrained wrote")
    try:
        dtype = getattr(torch, defaults_for(str(model)).dtype)
        limits = AdmissionLimits(max_lora_rank, dtype, refused_fields=_refused_fields(directory))
        found = admit(directory, shapes_of(model), limits)
    except AdapterRejected as error:
        return fail(f"{error.message} ({error.code})", ADVICE.get(Code(error.code), SAVE_AGAIN))
    facts = (
        f"rank {found.rank}, {found.parameters} parameters in {found.coverage['linears']} of "
        f"{found.coverage['linears_total']} linear layers"
    )
    if found.warnings:
        advice = "Read the warning. The adapter can be served without a change"
        return warn(f"{facts}; {'; '.join(found.warnings)}", advice)
    return ok(facts)


def _refused_fields(directory: Path) -> dict[str, str]:
    """Fields that the LoRA kernels of this machine's device cannot serve. vLLM is imported only if needed."""
    from lora_compose.adapters.peft.config import read_config as read_adapter_config

    config = read_adapter_config(directory)
    if not (config.use_dora or config.lora_bias):
        return {}
    from lora_compose.server.engine.frontend.inspection import device, refused_fields

    return refused_fields(scales_rows=device() == "cpu")
