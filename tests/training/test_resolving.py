"""Settings that depend on rows, base and machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training import memory_fit
from lora_compose.training.adapter_size import parameters_per_rank, rank_for
from lora_compose.training.dataset import load_examples
from lora_compose.training.remarks import remarks
from lora_compose.training.resolving import resolve
from lora_compose.training.run import prepare
from lora_compose.training.run_record import PreparedFacts
from tests.training.recipes import PREFERENCES, recipe

FACTS = PreparedFacts(rows=8, left_out=0, example="")


@pytest.mark.parametrize(
    ("bits", "rank"), [(1, 8), (2 * 1000 * 8, 8), (2 * 1000 * 8 + 1, 16), (2 * 1000 * 40, 64), (10**9, 64)]
)
def test_the_rank_is_the_least_power_of_two_that_stores_the_data(bits: int, rank: int) -> None:
    assert rank_for(bits, 1000) == rank


def test_parameters_are_those_of_an_adapter_of_rank_one(tmp_path: Path) -> None:
    trained = prepare(recipe(tmp_path, lora_r=4)).trainer.model.num_parameters(only_trainable=True)
    assert parameters_per_rank(recipe(tmp_path / "b").model) * 4 == trained
    fewer = recipe(tmp_path / "c", lora_target_modules=["q_proj"]).model
    assert parameters_per_rank(fewer) < trained / 4


def test_rank_auto_is_said_and_recorded(tmp_path: Path) -> None:
    made = recipe(tmp_path, lora_r=None, rank="auto")
    found, said = resolve(made, load_examples(made))
    assert found.model.lora_r == 8
    assert "rank 8: the rows hold at most" in said[0]
    assert recipe(tmp_path, lora_r=None, rank="12").adapter.rank == "12"


def test_a_preference_counts_as_one_bit(tmp_path: Path) -> None:
    made = recipe(tmp_path, "dpo", **PREFERENCES, lora_r=None, rank="auto")
    assert "at most 1000 bits (one for each row)" in resolve(made, load_examples(made))[1][0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": "auto"}, "rank or lora_r, not both"),
        ({"rank": "many", "lora_r": None}, r"rank \(many\) must be auto or a number"),
        ({"rank": "0", "lora_r": None}, "must be auto or a number above 0"),
        ({"rank": "8", "lora_r": None, "init_adapter": "x"}, "rank cannot be changed"),
        ({"good_from": 4.0}, "only for kto"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoraComposeError, match=message):
        recipe(tmp_path, **values)


def test_the_learning_rate_is_that_of_adapters_or_of_all_weights(tmp_path: Path) -> None:
    adapter = recipe(tmp_path / "a", learning_rate=None)
    whole = recipe(tmp_path / "b", learning_rate=None, use_peft=False)
    assert resolve(adapter, load_examples(adapter))[0].training.learning_rate == 2e-4
    assert resolve(whole, load_examples(whole))[0].training.learning_rate == 2e-5
    assert recipe(tmp_path / "c", "kto", **PREFERENCES, learning_rate=None).training.learning_rate == 5e-6


def test_activations_are_computed_again_only_if_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(tmp_path)
    examples = load_examples(made)
    assert not resolve(made, examples)[0].training.gradient_checkpointing
    monkeypatch.setattr(memory_fit, "free_memory", lambda: 1 << 20)
    found, said = resolve(made, examples)
    assert found.training.gradient_checkpointing
    assert "gradient_checkpointing is on: without it, a step needs about" in said[-1]
    own = recipe(tmp_path / "own", gradient_checkpointing=False)
    assert not resolve(own, examples)[0].training.gradient_checkpointing


def test_a_large_batch_and_settings_that_trl_removes_are_said(tmp_path: Path) -> None:
    made = recipe(tmp_path, per_device_train_batch_size=16, gradient_accumulation_steps=4, pad_token="<pad>")
    assert "A step has 64 rows" in next(remarks(made, FACTS))
    assert "`pad_token` is deprecated and will be removed in v2.0.0" in made.deprecated[0]
    smoothed = prepare(recipe(tmp_path / "c", label_smoothing_factor=0.1))
    assert "`label_smoothing_factor` is deprecated" in smoothed.deprecated[0]
    assert list(remarks(recipe(tmp_path / "b"), FACTS)) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_reporter_that_is_not_installed_is_refused_with_the_command(tmp_path: Path, name: str) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(LoraComposeError, match=f"python -m pip install {name}") as refused:
        recipe(tmp_path, report_to=[name])
    assert refused.value.code == "package_missing"
