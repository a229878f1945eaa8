"""DoRA and lora_bias compared with PEFT's own layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft import base_weights
from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.adapters.peft.dora import dora_module, layer_change, row_scales

NAMES = ("up", "down")

# PEFT warns about the shape of every bias that it saves.
pytestmark = pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(10, 12), nn.Linear(12, 7)


def peft_model(**config: Any) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(Two(), LoraConfig(r=3, lora_alpha=5, target_modules=list(NAMES), **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
        if "magnitude" in name:
            parameter.data.mul_(1 + 0.3 * torch.randn_like(parameter))
    return model.eval()


def saved(model: Any, home: Path) -> tuple[Lora, BaseWeights]:
    """The adapter as PEFT writes it, and the base in two files."""
    model.save_pretrained(home / "adapter")
    (home / "base").mkdir()
    for name in NAMES:
        weight = getattr(model.base_model.model, name).base_layer.weight.data
        save_file({f"{name}.weight": weight.clone()}, home / "base" / f"{name}.safetensors")
    return open_adapter(home / "adapter"), BaseWeights(home / "base")


CONFIGS = [
    {"use_dora": True},
    {"use_dora": True, "use_rslora": True},
    {"use_dora": True, "rank_pattern": {"down": 2}, "alpha_pattern": {"down": 9}},
    {"lora_bias": True},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_change_of_a_layer_is_peft_s(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_weights, "ROWS_AT_ONCE", 5)  # several blocks of rows
    model = peft_model(**config)
    lora, base = saved(model, tmp_path)
    scales = row_scales(lora, base)
    for name in NAMES:
        layer = getattr(model.base_model.model, name)
        x = torch.randn(4, layer.in_features)
        change = layer_change(lora.modules[name], scales.get(name))
        got = x @ change.lora_A.T @ change.lora_B.T
        if change.row_change is not None:
            got += change.row_change * (x @ layer.base_layer.weight.T)
        if change.bias is not None:
            got += change.bias
        torch.testing.assert_close(got, layer(x) - layer.base_layer(x), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_what_is_written_is_read_as_the_same_and_twice_as_equal_bytes(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    lora, base = saved(peft_model(**config), tmp_path)
    write_adapter(lora, tmp_path / "once", "base")
    again = open_adapter(tmp_path / "once")
    write_adapter(again, tmp_path / "twice", "base")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    before, after = row_scales(lora, base), row_scales(again, base)
    for name in NAMES:
        left, right = (
            layer_change(x.modules[name], s.get(name)) for x, s in ((lora, before), (again, after))
        )
        torch.testing.assert_close(left.lora_B @ left.lora_A, right.lora_B @ right.lora_A)
        for one, other in ((left.row_change, right.row_change), (left.bias, right.bias)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_change_becomes_a_dora_module_that_makes_it(tmp_path: Path) -> None:
    lora, base = saved(peft_model(use_dora=True), tmp_path)
    weight = base.weight("up", (12, 10))
    change = layer_change(lora.modules["up"], row_scales(lora, base)["up"] - 1.5, torch.float64)
    made = Lora({"up": dora_module("up", change, weight)})
    got = layer_change(made.modules["up"], row_scales(made, base)["up"], torch.float64)
    assert change.row_change is not None
    assert got.row_change is not None
    assert (change.row_change < -1).any()  # a negative scale is a negative magnitude
    torch.testing.assert_close(got.row_change, change.row_change, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got.lora_B @ got.lora_A, change.lora_B @ change.lora_A, atol=1e-5, rtol=1e-5)


def test_the_norms_of_a_bfloat16_base_are_those_of_its_values(tmp_path: Path) -> None:
    lora, base = saved(peft_model(use_dora=True), tmp_path)
    rounded = load_file(tmp_path / "base" / "up.safetensors")["up.weight"].bfloat16()
    save_file({"up.weight": rounded}, tmp_path / "base" / "up.safetensors")
    module = lora.modules["up"]
    assert module.magnitude is not None
    dense = rounded.double() + module.scaling * module.lora_B.double() @ module.lora_A.double()
    expected = module.magnitude.double() / dense.norm(dim=1)
    torch.testing.assert_close(row_scales(lora, base)["up"], expected, atol=1e-6, rtol=1e-6)


def refusal(lora: Lora, base: BaseWeights) -> AdapterRejected:
    with pytest.raises(AdapterRejected) as refused:
        row_scales(lora, base)
    return refused.value


def test_a_base_without_the_weights_is_a_refusal_that_says_so(tmp_path: Path) -> None:
    lora, _ = saved(peft_model(use_dora=True), tmp_path)
    (tmp_path / "base" / "down.safetensors").unlink()
    assert "not in the checkpoint" in refusal(lora, BaseWeights(tmp_path / "base")).message
    assert refusal(lora, BaseWeights(tmp_path)).code == "unsupported_feature"
    quantized = {"down.weight": torch.ones(7, 12, dtype=torch.int8)}
    save_file(quantized, tmp_path / "base" / "down.safetensors")
    assert "floating-point" in refusal(lora, BaseWeights(tmp_path / "base")).message
    save_file({"down.weight": torch.ones(7, 6)}, tmp_path / "base" / "down.safetensors")
    assert "shape" in refusal(lora, BaseWeights(tmp_path / "base")).message


def test_a_row_without_a_norm_has_no_scale(tmp_path: Path) -> None:
    lora, base = saved(peft_model(use_dora=True), tmp_path)
    zero = LoraModule(torch.zeros(3, 10), torch.zeros(12, 3), 1.0, magnitude=torch.ones(12))
    save_file({"up.weight": torch.zeros(12, 10)}, tmp_path / "base" / "up.safetensors")
    assert refusal(Lora({"up": zero}), base).code == "non_finite_weights"
    assert row_scales(Lora({"down": LoraModule(torch.ones(1, 12), torch.ones(7, 1), 1.0)}), base) == {}
    assert lora.has_dora
