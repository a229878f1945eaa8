"""Adapters with DoRA or lora_bias: which are admitted, and why the others are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from tests.adapters.adapter_files import INNER, WIDTH, factors, write_adapter, write_base

LIMITS = AdmissionLimits(max_lora_rank=16, dtype=torch.float32)
Q = "base_model.model.model.layers.0.self_attn.q_proj"
MODULES = [
    f"base_model.model.model.layers.{layer}.{module}"
    for layer in (0, 1)
    for module in ("self_attn.q_proj", "mlp.down_proj")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseShapes:
    directory = write_base(tmp_path_factory.mktemp("base"))
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(directory)).save_pretrained(directory, max_shard_size="20KB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    return BaseShapes.of(directory, "tiny")


def vectors(part: str, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {f"{module}.{part}": torch.full((WIDTH,), value) for module in MODULES}


def dora() -> dict[str, torch.Tensor]:
    return factors() | vectors("lora_magnitude_vector", 0.5)


def refused(directory: Path, base: BaseShapes, limits: AdmissionLimits = LIMITS) -> AdapterRejected:
    with pytest.raises(AdapterRejected) as caught:
        admit(directory, base, limits)
    assert str(base.directory) not in caught.value.message
    return caught.value


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_what_peft_saves_is_admitted(tmp_path: Path, base: BaseShapes, config: dict[str, bool]) -> None:
    model = LlamaForCausalLM.from_pretrained(base.directory)
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], **config))
    peft.save_pretrained(tmp_path / "adapter")
    admission = admit(tmp_path / "adapter", base, LIMITS)
    assert admission.parameters == 2 * (4 * (WIDTH + WIDTH) + 4 * (WIDTH + INNER) + WIDTH + INNER)


def test_the_peak_bounds_the_true_delta(tmp_path: Path, base: BaseShapes) -> None:
    weight = _weights(base)["model.layers.0.self_attn.q_proj.weight"].double()
    tensors = {name: t for name, t in dora().items() if name.startswith(Q)}
    peak = admit(write_adapter(tmp_path, tensors, use_dora=True), base, LIMITS).peak
    changed = weight + 2 * tensors[f"{Q}.lora_B.weight"].double() @ tensors[f"{Q}.lora_A.weight"].double()
    delta = 0.5 * changed / changed.norm(dim=1, keepdim=True) - weight
    assert torch.linalg.matrix_norm(delta, 2) <= peak < 1e4


def test_a_bias_alone_has_an_effect(tmp_path: Path, base: BaseShapes) -> None:
    zero = {name: torch.zeros_like(tensor) for name, tensor in factors().items()}
    with_bias = admit(write_adapter(tmp_path, zero | vectors("lora_B.bias"), lora_bias=True), base, LIMITS)
    assert with_bias.warnings == ()
    assert with_bias.peak == pytest.approx(2 * WIDTH**0.5)


def test_a_module_without_a_bias_has_a_bias_of_zero(tmp_path: Path, base: BaseShapes) -> None:
    assert admit(write_adapter(tmp_path, factors(), lora_bias=True), base, LIMITS).rank == 4


REFUSED: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], str]] = {
    "no magnitude": (factors(), {"use_dora": True}, "corrupt_weights"),
    "another width": (
        dora() | {f"{Q}.lora_magnitude_vector": torch.ones(WIDTH + 1)},
        {"use_dora": True},
        "wrong_base",
    ),
    "NaN in a magnitude": (
        dora() | {f"{Q}.lora_magnitude_vector": torch.full((WIDTH,), torch.nan)},
        {"use_dora": True},
        "non_finite_weights",
    ),
    "infinite in float32 after the scaling": (
        factors() | vectors("lora_B.bias", 3e38),
        {"lora_bias": True},
        "non_finite_weights",
    ),
    "a magnitude for another base": (
        factors() | vectors("lora_magnitude_vector", 1e7),
        {"use_dora": True},
        "non_finite_weights",
    ),
    "DoRA off in the config": (dora(), {}, "bad_adapter_config"),
    "bias off in the config": (factors() | vectors("lora_B.bias"), {}, "bad_adapter_config"),
    "both": (dora(), {"use_dora": True, "lora_bias": True}, "bad_adapter_config"),
    "a bias with an initialisation that PEFT refuses": (
        factors() | vectors("lora_B.bias"),
        {"lora_bias": True, "init_lora_weights": "gaussian"},
        "bad_adapter_config",
    ),
    "int8": (
        dora() | {f"{Q}.lora_magnitude_vector": torch.ones(WIDTH, dtype=torch.int8)},
        {"use_dora": True},
        "unsupported_feature",
    ),
    "a bias only": ({f"{Q}.lora_B.bias": torch.ones(WIDTH)}, {"lora_bias": True}, "corrupt_weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_peft_s_answer_is_refused(tmp_path: Path, base: BaseShapes, case: str) -> None:
    tensors, config, code = REFUSED[case]
    assert refused(write_adapter(tmp_path, tensors, **config), base).code == code


def test_an_untrained_base_row_has_no_scale(tmp_path: Path, base: BaseShapes) -> None:
    directory = write_base(tmp_path / "base")
    zero = {name: torch.zeros_like(weight) for name, weight in _weights(base).items()}
    save_file(zero, directory / "model.safetensors")
    tensors = {name: torch.zeros_like(t) if "lora_B" in name else t for name, t in dora().items()}
    adapter = write_adapter(tmp_path / "adapter", tensors, use_dora=True)
    assert refused(adapter, replace(base, directory=directory)).code == "non_finite_weights"


def test_a_quantized_base_is_named_as_the_reason(tmp_path: Path, base: BaseShapes) -> None:
    directory = write_base(tmp_path / "base")
    packed = {name: weight.to(torch.int8) for name, weight in _weights(base).items()}
    save_file(packed, directory / "model.safetensors")
    adapter = write_adapter(tmp_path / "adapter", dora(), use_dora=True)
    refusal = refused(adapter, replace(base, directory=directory))
    assert (refusal.code, refusal.param) == ("unsupported_feature", "use_dora")
    assert "unquantized" in refusal.message


def test_a_field_that_the_engine_does_not_serve_is_refused_with_its_reason(
    tmp_path: Path, base: BaseShapes
) -> None:
    limits = replace(LIMITS, refused_fields={"use_dora": "these kernels only add products"})
    refusal = refused(write_adapter(tmp_path / "a", dora(), use_dora=True), base, limits)
    assert (refusal.code, refusal.param) == ("unsupported_feature", "use_dora")
    assert "these kernels only add products" in refusal.message
    assert admit(write_adapter(tmp_path / "b"), base, limits).rank == 4


def _weights(base: BaseShapes) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in base.directory.glob("*.safetensors"):
        found |= load_file(path)
    return found
