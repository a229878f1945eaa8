"""Merges of adapters of the input embedding and the output head, read by PEFT on a real tiny Llama."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compose.adapters.composition.composition import MethodOptions
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.merging.methods import METHODS
from lora_compose.adapters.merging.report import MergeReport
from lora_compose.adapters.peft.checkpoint import open_adapter
from tests.adapters.tiny_llama import dense_logits, peft_logits, save_adapter

# PEFT warns that it saves the base's own weights too.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
WEIGHTS = {"both": 0.7, "head": -0.5}
MODULES = {"model.embed_tokens", "lm_head"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    both = save_adapter(root / "both", seed=1, target_modules=["embed_tokens", "lm_head"])
    return {"both": both, "head": save_adapter(root / "head", seed=2, r=3, target_modules=["lm_head"])}


def merged(
    saved: dict[str, Path], output: Path, method: str, weights: dict[str, float] = WEIGHTS
) -> MergeReport:
    inputs = [MergeInput(saved[name], weight) for name, weight in weights.items()]
    density = 1.0 if METHODS[method].needs_density else None
    return build(method, inputs, MethodOptions(density=density), output, MergeBase("base"))


@pytest.mark.parametrize("method", METHODS)
def test_peft_answers_with_the_deltas_of_every_method(
    saved: dict[str, Path], tmp_path: Path, method: str
) -> None:
    report = merged(saved, tmp_path / "out", method)
    modules = open_adapter(tmp_path / "out").modules
    assert modules.keys() == report.modules.keys() == MODULES
    assert {module.shape for module in modules.values()} == {(64, 32)}
    deltas = {name: module.delta() for name, module in modules.items()}
    torch.testing.assert_close(dense_logits(deltas), peft_logits(tmp_path / "out"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["stack", "linear"])
def test_an_exact_merge_is_the_sum_of_the_deltas(saved: dict[str, Path], tmp_path: Path, method: str) -> None:
    report = merged(saved, tmp_path / "out", method)
    sums: dict[str, Any] = {}
    for name, weight in WEIGHTS.items():
        for module, factors in open_adapter(saved[name]).modules.items():
            sums[module] = sums.get(module, 0) + weight * factors.delta()
    for module, factors in open_adapter(tmp_path / "out").modules.items():
        torch.testing.assert_close(factors.delta(), sums[module], atol=1e-5, rtol=1e-5)
        assert (report.modules[module].relative_error or 0) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_at_density_1_is_unchanged(saved: dict[str, Path], tmp_path: Path, method: str) -> None:
    merged(saved, tmp_path / "out", method, {"both": 1.0})
    torch.testing.assert_close(
        peft_logits(tmp_path / "out"), peft_logits(saved["both"]), atol=1e-4, rtol=1e-4
    )
