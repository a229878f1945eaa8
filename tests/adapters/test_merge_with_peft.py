"""Merges compared with PEFT's own merges, on a real tiny Llama."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lora_compose.adapters.composition.composition import MethodOptions
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.peft.checkpoint import open_adapter
from tests.adapters.tiny_llama import dense_logits, peft_deltas, peft_logits, save_adapter, tiny_llama

WEIGHTS = {"plain": 0.7, "rslora": -0.5, "pattern": 1.5}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters with three ranks, three scalings and three sets of modules."""
    root = tmp_path_factory.mktemp("adapters")
    pattern = {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6}, "alpha_pattern": {"down_proj": 20}}
    return {
        "plain": save_adapter(root / "plain", seed=1),
        "rslora": save_adapter(
            root / "rslora", seed=2, r=3, use_rslora=True, target_modules=["q_proj", "o_proj"]
        ),
        "pattern": save_adapter(root / "pattern", seed=3, **pattern),
    }


def loaded(saved: dict[str, Path]) -> PeftModel:
    model = PeftModel.from_pretrained(tiny_llama(), str(saved["plain"]), adapter_name="plain")
    model.load_adapter(str(saved["rslora"]), "rslora")
    model.load_adapter(str(saved["pattern"]), "pattern")
    return model


def merged(saved: dict[str, Path], output: Path, method: str, **options: float) -> Path:
    inputs = [MergeInput(saved[name], weight) for name, weight in WEIGHTS.items()]
    build(method, inputs, MethodOptions(**options), output, MergeBase("base"))  # type: ignore[arg-type]
    return output


def test_a_stack_is_the_cat_of_peft(saved: dict[str, Path], tmp_path: Path) -> None:
    model = loaded(saved)
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "cat", combination_type="cat")
    theirs = peft_deltas(model, "cat")
    stack = open_adapter(merged(saved, tmp_path / "stack", "stack"))
    assert stack.modules.keys() == theirs.keys()
    for name, module in stack.modules.items():
        torch.testing.assert_close(module.delta(), theirs[name], rtol=1e-4, atol=1e-5)


def test_a_stack_loaded_by_peft_answers_as_the_base_with_the_sum_of_deltas(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    model = loaded(saved)
    deltas: dict[str, torch.Tensor] = {}
    for adapter, weight in WEIGHTS.items():
        for name, delta in peft_deltas(model, adapter).items():
            deltas[name] = deltas.get(name, torch.zeros(())) + weight * delta.double()
    expected = dense_logits({name: delta.float() for name, delta in deltas.items()})
    ours = peft_logits(merged(saved, tmp_path / "stack", "stack"))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs", "density"),
    [("svd", "svd", None), ("ties", "ties_svd", 0.4), ("magnitude_prune", "magnitude_prune_svd", 0.4)],
)
def test_a_method_without_chance_is_the_one_peft_has_on_true_deltas(
    saved: dict[str, Path], tmp_path: Path, ours: str, theirs: str, density: float | None
) -> None:
    model = loaded(saved)
    options = {} if density is None else {"density": density}
    model.add_weighted_adapter(
        list(WEIGHTS), list(WEIGHTS.values()), "x", combination_type=theirs, svd_rank=5, **options
    )
    expected = peft_deltas(model, "x")
    result = open_adapter(merged(saved, tmp_path / "out", ours, rank=5, **options))
    for name, module in result.modules.items():
        torch.testing.assert_close(module.delta(), expected[name], rtol=1e-3, atol=1e-4)
