import json
import shutil
from dataclasses import fields
from pathlib import Path

import torch
from peft import LoraConfig

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from tests.campaigns.peft_oracle import PeftOracle

SMALL: tuple[object, ...] = (None, False, 0, 1, "", "x", [], [1], {}, {"x": 1})
"""Values that people write for "nothing", and a few other small values."""


def test_peft_loads_every_admitted_config_with_any_small_value_in_a_field(tmp_path: Path) -> None:
    base, limits = (
        BaseShapes.of(BASE_DIR, "testbed-base"),
        AdmissionLimits(max_lora_rank=64, dtype=torch.float32),
    )
    oracle, directory = PeftOracle(BASE_DIR, 64), tmp_path / "adapter"
    shutil.copytree(ADAPTERS_DIR / "roll", directory)
    config = json.loads((directory / "adapter_config.json").read_text())
    admitted, wrong = 0, []
    for field in [field.name for field in fields(LoraConfig)] + ["unknown_field"]:
        for value in SMALL:
            (directory / "adapter_config.json").write_text(json.dumps(config | {field: value}))
            try:
                admit(directory, base, limits)
            except AdapterRejected:
                continue
            admitted += 1
            if reason := oracle.why_not(directory):
                wrong.append(f"{field} = {value!r}: {reason}")
    assert not wrong
    assert admitted > len(fields(LoraConfig))
