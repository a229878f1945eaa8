from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from tests.adapters.written_adapters import SHAPES, write_peft
from tests.campaigns.faults.broken_adapter import config

LIMITS = AdmissionLimits(max_lora_rank=8, dtype=torch.float32)
BASE = BaseShapes(dict(SHAPES), "f00d", "made-up")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("target_modules", ["nothing"], "unknown_module"),
        ("target_modules", [], "bad_adapter_config"),
        ("target_modules", [7], "bad_adapter_config"),
        ("target_modules", "CAUSAL_LM", "unknown_module"),
        ("target_modules", "(", "bad_adapter_config"),
        ("exclude_modules", ["q_proj"], "unknown_module"),
        ("layers_to_transform", 99, "unknown_module"),
        ("alpha_pattern", None, "bad_adapter_config"),
        ("task_type", "CAUSAL", "bad_adapter_config"),
        ("lora_dropout", 7, "bad_adapter_config"),
        ("lora_dropout", "x", "bad_adapter_config"),
        ("layers_pattern", "layers", "bad_adapter_config"),
        ("layers_to_transform", ["x"], "bad_adapter_config"),
        ("exclude_modules", [1], "bad_adapter_config"),
        ("eva_config", 7, "bad_adapter_config"),
    ],
)
def test_what_peft_would_not_load_as_it_is_is_refused(
    tmp_path: Path, field: str, value: object, code: str
) -> None:
    directory = write_peft(tmp_path / "a", seed=1).directory
    admit(directory, BASE, LIMITS)
    config(**{field: value})(directory)
    with pytest.raises(AdapterRejected) as refusal:
        admit(directory, BASE, LIMITS)
    assert refusal.value.code == code


def test_an_adapter_of_modules_that_the_server_leaves_out_is_refused(tmp_path: Path) -> None:
    directory = write_peft(tmp_path / "a", seed=1).directory
    served = frozenset(module.rpartition(".")[2] for module in SHAPES)
    admit(directory, BASE, replace(LIMITS, modules=served | {"lm_head"}))
    for left in (served - {"q_proj"}, frozenset({"down_proj"})):
        with pytest.raises(AdapterRejected) as refused:
            admit(directory, BASE, replace(LIMITS, modules=left))
        assert (refused.value.code, refused.value.param) == ("unknown_module", "target_modules")
        assert "--lora-target-modules" in refused.value.message
