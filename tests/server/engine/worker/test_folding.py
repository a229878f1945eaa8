"""Checkpoints with a folded delta, compared with dense sums."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE
from lora_compose.server.engine.spec import Component
from lora_compose.server.engine.worker.folding import folded_checkpoint, why_not_foldable, without
from lora_compose.server.engine.worker.stacking import AdapterReader

ROLL, UPPER = EMBEDDED_ADAPTERS / "roll", EMBEDDED_ADAPTERS / "upper"


def test_the_checkpoint_has_the_deltas_and_is_else_the_same() -> None:
    plain = load_file(EMBEDDED_BASE / "model.safetensors")
    loras = {path: open_adapter(path) for path in (ROLL, UPPER)}
    stack = AdapterReader(BaseWeights(EMBEDDED_BASE)).load_stack(
        [Component(str(ROLL), 0.5), Component(str(UPPER), -2.0)], torch.float32
    )
    shares: list[float] = []
    folded = dict(folded_checkpoint(EMBEDDED_BASE, stack, shares.append))
    assert folded.keys() == plain.keys()
    for name, weight in plain.items():
        module = name.removesuffix(".weight")
        if module not in loras[ROLL].modules:
            assert torch.equal(folded[name], weight)
            continue
        delta = 0.5 * loras[ROLL].modules[module].delta() - 2.0 * loras[UPPER].modules[module].delta()
        torch.testing.assert_close(
            folded[name].double(), weight.double() + delta.double(), atol=1e-5, rtol=1e-5
        )
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1.0


def test_nothing_folded_is_the_checkpoint_to_the_bit() -> None:
    plain = load_file(EMBEDDED_BASE / "model.safetensors")
    for name, weight in folded_checkpoint(EMBEDDED_BASE, {}, lambda _: None):
        assert torch.equal(weight, plain[name])


def test_what_cannot_be_folded_says_why(tmp_path: Path) -> None:
    roll = [Component(str(ROLL), 1.0)]
    assert why_not_foldable(EMBEDDED_BASE, roll) is None
    assert "no safetensors" in (why_not_foldable(tmp_path, roll) or "")
    quantized = {"model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2, dtype=torch.int8)}
    save_file(quantized, tmp_path / "model.safetensors")
    assert "no floating-point weight for model.layers.0" in (why_not_foldable(tmp_path, roll) or "")


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("tied", [True, False])
def test_the_delta_of_an_embedding_is_added_to_the_rows_of_its_tokens(tmp_path: Path, tied: bool) -> None:
    config = AutoConfig.from_pretrained(EMBEDDED_BASE)
    config.tie_word_embeddings = tied
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    lora = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["embed_tokens", "lm_head"], init_lora_weights=False
    )
    get_peft_model(model, lora).save_pretrained(str(tmp_path / "adapter"))
    components = [Component(str(tmp_path / "adapter"), 0.5)]
    kept = {"embed_tokens", "lm_head"} if tied else set()
    assert why_not_foldable(tmp_path / "base", components, kept) is None
    stack = AdapterReader(BaseWeights(tmp_path / "base")).load_stack(components, torch.float32)
    plain = load_file(tmp_path / "base" / "model.safetensors")
    folded = dict(folded_checkpoint(tmp_path / "base", without(stack, kept), lambda _: None))
    for name, module in open_adapter(tmp_path / "adapter").modules.items():
        if tied:
            assert all(torch.equal(folded[tensor], plain[tensor]) for tensor in plain)
        else:
            delta = folded[f"{name}.weight"].double() - plain[f"{name}.weight"].double()
            torch.testing.assert_close(delta, 0.5 * module.delta().double(), atol=1e-5, rtol=1e-5)
