"""The arithmetic compared with figures by hand, published figures, and laws for any shape."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.planning.architectures import shape_of
from lora_compose.training.planning.memory import (
    GIB,
    constant_bytes,
    memory_of,
    nf4_bytes,
    optimizer_bytes,
    trained_parameters,
)
from lora_compose.training.planning.models import read_shape
from lora_compose.training.planning.settings import PlanSettings
from lora_compose.training.planning.shapes import Linear, ModelShape

SETTINGS = st.builds(
    PlanSettings,
    method=st.sampled_from(["full", "lora", "qlora"]),
    seq_len=st.sampled_from([64, 1000]),
    batch=st.sampled_from([1, 3]),
    rank=st.sampled_from([1, 16]),
    optimizer=st.sampled_from(["adamw_torch", "adamw_8bit"]),
    gradient_checkpointing=st.booleans(),
    full_logits=st.booleans(),
)


@pytest.fixture(scope="module")
def llama_70b() -> ModelShape:
    return read_shape("llama-3-70b")


@pytest.fixture(scope="module")
def llama_8b() -> ModelShape:
    return read_shape("llama-3-8b")


def test_double_quantization_takes_4_127_bits_a_weight() -> None:
    linear = Linear("up_proj", 8192, 28672)
    bits = 8 * (nf4_bytes(linear) + constant_bytes(linear, double_quant=True)) / linear.weights
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-4)
    assert 8 * constant_bytes(linear, double_quant=False) / linear.weights == pytest.approx(0.5, abs=1e-4)


def test_the_weights_of_a_70b_in_nf4_are_36_8_gib(llama_70b: ModelShape) -> None:
    for double_quant, expected in ((True, 36.8), (False, 39.8)):
        memory = memory_of(llama_70b, PlanSettings(double_quant=double_quant))
        assert (memory.weights + memory.quantization_constants) / GIB == pytest.approx(expected, abs=0.05)


def test_adapters_of_rank_16_on_every_linear_of_a_70b_are_207_million(llama_70b: ModelShape) -> None:
    trained, size = trained_parameters(llama_70b, PlanSettings())
    assert (trained, size) == (207_093_760, 2)
    all_float32 = sum((4 + 4) * trained for _ in range(2)) / GIB
    assert all_float32 == pytest.approx(3.1, abs=0.05)
    assert (
        4 * trained + optimizer_bytes(trained, 2, PlanSettings(optimizer="adamw_8bit"))
    ) / GIB == pytest.approx(1.2, abs=0.05)


def test_a_70b_by_qlora_fits_48_gb_and_never_24(llama_70b: ModelShape) -> None:
    assert 40 < memory_of(llama_70b, PlanSettings()).total / GIB < 44.3
    smallest = PlanSettings(seq_len=1, rank=1, optimizer="paged_adamw_8bit", target_modules=("q_proj",))
    assert memory_of(llama_70b, smallest).total / GIB > 36.8


@pytest.mark.parametrize(("method", "measured"), [("qlora", 7.4), ("lora", 16.2)])
def test_an_8b_is_within_a_tenth_of_what_torchtune_measured(
    llama_8b: ModelShape, method: Any, measured: float
) -> None:
    memory = memory_of(llama_8b, PlanSettings(method=method, seq_len=2048, batch=2, rank=8))
    assert (memory.total - memory.overhead) / GIB == pytest.approx(measured, rel=0.1)


def test_full_fine_tuning_in_mixed_precision_holds_16_bytes_a_parameter(llama_8b: ModelShape) -> None:
    assert memory_of(llama_8b, PlanSettings(method="full")).resident == 16 * llama_8b.parameters


@given(SETTINGS)
def test_more_tokens_never_take_less_and_leave_what_is_resident(settings: PlanSettings) -> None:
    shape = shape_of(LlamaConfig(num_hidden_layers=3))
    small, large = memory_of(shape, settings), memory_of(shape, replace(settings, batch=settings.batch + 1))
    assert small.total <= large.total
    assert small.resident == large.resident


@given(SETTINGS)
def test_each_saving_saves(settings: PlanSettings) -> None:
    shape = shape_of(LlamaConfig(num_hidden_layers=12, num_key_value_heads=8))
    with_checkpoints = memory_of(shape, replace(settings, gradient_checkpointing=True)).activations
    assert with_checkpoints < memory_of(shape, replace(settings, gradient_checkpointing=False)).activations
    eight_bit = memory_of(shape, replace(settings, optimizer="adamw_8bit")).optimizer
    assert eight_bit <= memory_of(shape, replace(settings, optimizer="adamw_torch")).optimizer
    assert memory_of(shape, replace(settings, method="qlora")).weights < memory_of(
        shape, settings
    ).weights or (settings.method == "qlora")


def test_fewer_target_modules_train_fewer_parameters(llama_8b: ModelShape) -> None:
    trained, _ = trained_parameters(llama_8b, PlanSettings(target_modules=("q_proj", "v_proj"), rank=8))
    assert trained == 32 * 8 * (4096 + 4096 + 4096 + 1024)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"target_modules": ("qkv",)}, "unknown_target_module"),
        ({"seq_len": 0}, "bad_plan"),
        ({"optimizer": "sgd"}, "bad_plan"),
        ({"lora_dropout": 1.0}, "bad_plan"),
        ({"method": "dora"}, "bad_plan"),
    ],
)
def test_what_cannot_be_planned_is_refused(llama_8b: ModelShape, settings: dict[str, Any], code: str) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        memory_of(llama_8b, PlanSettings(**settings))
    assert refusal.value.code == code
