from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from tests.adapters.adapter_files import factors, write_adapter, write_base

LIMITS = AdmissionLimits(max_lora_rank=16, dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseShapes:
    return BaseShapes.of(write_base(tmp_path_factory.mktemp("base")), "tiny")


@pytest.mark.parametrize(
    "targets", [["q_proj", "norm"], ["mlp", "q_proj"], ["layers.0"], ".*", r".*layers.*"]
)
def test_a_target_that_is_no_linear_layer_is_refused(tmp_path: Path, base: BaseShapes, targets: Any) -> None:
    with pytest.raises(AdapterRejected, match="is not a linear layer") as refused:
        admit(write_adapter(tmp_path, target_modules=targets), base, LIMITS)
    assert (refused.value.code, refused.value.param) == ("bad_adapter_config", "target_modules")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, "2 of the 4 layers"),
        ({"target_modules": ["q_proj", "k_proj", "down_proj"]}, "4 of the 6 layers"),
        ({"target_modules": "all-linear"}, "12 of the 14 layers"),
    ],
)
def test_layers_without_weights_are_counted(
    tmp_path: Path, base: BaseShapes, config: dict[str, Any], count: str
) -> None:
    (warning,) = admit(write_adapter(tmp_path, factors(range(1)), **config), base, LIMITS).warnings
    assert warning.startswith("missing_tensors: ")
    assert count in warning


def test_layers_that_the_config_leaves_out_are_not_missing(tmp_path: Path, base: BaseShapes) -> None:
    adapter = write_adapter(tmp_path, factors(range(1)), layers_to_transform=[0])
    assert admit(adapter, base, LIMITS).warnings == ()


def test_without_target_modules_pefts_default_for_the_type_of_the_base_counts(
    tmp_path: Path, base: BaseShapes
) -> None:
    only_q = {name: tensor for name, tensor in factors().items() if "q_proj" in name}
    (warning,) = admit(write_adapter(tmp_path, only_q, target_modules=None), base, LIMITS).warnings
    assert "2 of the 4 layers" in warning  # q_proj and v_proj
    with pytest.raises(AdapterRejected, match="target_modules"):
        admit(write_adapter(tmp_path, target_modules=None), base, LIMITS)  # down_proj is not among them
    other = BaseShapes(base.linears, "f00d", "other", model_type="nobody-knows")
    with pytest.raises(AdapterRejected, match="no default for 'nobody-knows'"):
        admit(write_adapter(tmp_path, only_q, target_modules=None), other, LIMITS)
