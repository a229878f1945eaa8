"""The plan's counts are those of a real model with PEFT and bitsandbytes."""

from typing import Any

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lora_compose.training.planning.architectures import shape_of
from lora_compose.training.planning.memory import constant_bytes, nf4_bytes, trained_parameters
from lora_compose.training.planning.settings import PlanSettings
from lora_compose.training.planning.shapes import Linear
from tests.training.planning.test_architectures import TINY, VARIANTS


@pytest.mark.parametrize(("model_type", "others"), VARIANTS)
@pytest.mark.filterwarnings("ignore")
def test_peft_trains_as_many_parameters(model_type: str, others: dict[str, Any]) -> None:
    config = CONFIG_MAPPING[model_type](**(TINY | others))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert trained == trained_parameters(shape_of(config), PlanSettings(method="lora", rank=4))[0]


@pytest.mark.parametrize("double_quant", [True, False])
def test_bitsandbytes_packs_a_matrix_into_as_many_bytes(double_quant: bool) -> None:
    linear = Linear("up_proj", 96, 200)
    weight = torch.randn(linear.d_out, linear.d_in)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=double_quant
    )
    constants = [state.absmax, state.code]
    if double_quant:
        constants += [state.offset, state.state2.absmax, state.state2.code]
    assert packed.nbytes == nf4_bytes(linear)
    assert sum(tensor.nbytes for tensor in constants) == constant_bytes(linear, double_quant)
