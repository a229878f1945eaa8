"""Checkpoints with a folded delta, compared with dense sums."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE
from lora_compose.server.engine.spec import Component
from lora_compose.server.engine.worker.folding import folded_checkpoint, why_not_foldable
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
