"""Would the server admit this adapter? Asked of the real admission, against the real base's shapes."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.server.config import EMBEDDED_OPTIONS, ServerConfig
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.doctor.model import read_config

if TYPE_CHECKING:
    from lora_compose.adapters.admission.base_model import BaseShapes

SAVE_AGAIN = "Save it again with PEFT's save_pretrained, and give that directory"
OTHER_BASE = "Give --model the base it was trained on, or train it again for this one"
ADVICE = {
    Code.BAD_ADAPTER_CONFIG: SAVE_AGAIN,
    Code.BAD_ALPHA: "Correct lora_alpha and alpha_pattern in adapter_config.json to what it was trained with",
    Code.BAD_RANK: "Correct r and rank_pattern in adapter_config.json to what it was trained with",
    Code.CORRUPT_WEIGHTS: "Copy adapter_model.safetensors again from where it was trained",
    Code.MISSING_CONFIG: SAVE_AGAIN,
    Code.MISSING_WEIGHTS: SAVE_AGAIN,
    Code.NON_FINITE_WEIGHTS: "The training diverged, or it overflows in this dtype: train it at a lower rate",
    Code.NOT_A_REGULAR_FILE: "Copy the files themselves into the directory (`cp -L`)",
    Code.PICKLE_REFUSED: SAVE_AGAIN,
    Code.RANK_MISMATCH: "Config and weights are of two adapters: " + SAVE_AGAIN.lower(),
    Code.RANK_TOO_LARGE: "Start `serve` with a higher --max-lora-rank, or truncate it: "
    '`lora-compose compose "svd(a,rank=R)" OUT --adapter a=DIR`',
    Code.UNKNOWN_LAYER: OTHER_BASE,
    Code.UNKNOWN_MODULE: OTHER_BASE,
    Code.UNSUPPORTED_FEATURE: "Train it as plain LoRA (rsLoRA and ranks per module work), or remove the field",
    Code.WEIGHTS_TOO_LARGE: "Start `serve` with a higher --max-adapter-bytes",
    Code.WRONG_BASE: OTHER_BASE,
}


@cache
def shapes_of(model: Path) -> "BaseShapes":
    """Read once for any number of adapters, under the name the base is served by."""
    from lora_compose.adapters.admission.base_model import BaseShapes

    read_config(model)
    embedded = ServerConfig(str(model)).is_embedded
    return BaseShapes.of(model, EMBEDDED_OPTIONS[1] if embedded else model.name)


def checks(directory: Path, model: Path, max_lora_rank: int) -> list[Check]:
    section = f"adapter {directory.name}"
    return [Check(section, "admission", partial(admission, directory, model, max_lora_rank))]


def admission(directory: Path, model: Path, max_lora_rank: int) -> Finding:
    """In the dtype the base computes in on this machine."""
    import torch

    from lora_compose.adapters.admission.admit import AdmissionLimits, admit

    if not directory.is_dir():
        return fail(f"{directory} is no directory", "Give the directory that PEFT's save_pretrained wrote")
    try:
        found = admit(directory, shapes_of(model), AdmissionLimits(max_lora_rank, torch.float32))
    except AdapterRejected as error:
        return fail(f"{error.message} ({error.code})", ADVICE.get(Code(error.code), SAVE_AGAIN))
    words = (
        f"rank {found.rank}, {found.parameters} parameters in {found.coverage['linears']} of "
        f"{found.coverage['linears_total']} linears"
    )
    if found.warnings:
        return warn(f"{words}; {'; '.join(found.warnings)}", "Read the warning; it can be served as it is")
    return ok(words)
