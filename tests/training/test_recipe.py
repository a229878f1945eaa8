"""Recipes: TRL's options and ours, and refusals before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.recipe import read_recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.run_record import RunSettings
from lora_compose.training.testbed.paths import TESTBED_DIR
from tests.training.recipes import HELD_OUT, recipe, written

METHODS: dict[str, Method] = {"dpo": "dpo", "kto": "kto"}
SHIPPED = sorted((TESTBED_DIR.parent / "recipes").glob("*.yaml"))


def test_options_are_trl_s_and_override_the_file(tmp_path: Path) -> None:
    made = read_recipe("sft", written(tmp_path), ["--lora_r", "16", "--learning_rate", "1e-4"])
    assert (made.model.lora_r, made.training.learning_rate) == (16, 1e-4)
    assert made.training.max_steps == 6


def test_what_a_recipe_leaves_out_suits_the_machine(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    assert made.model.use_peft
    assert made.model.lora_target_modules == "all-linear"
    assert not made.training.bf16
    assert not made.training.gradient_checkpointing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_rank": 4}, "lora_rank"),
        ({"learning_rte": 1}, r"learning_rte \(did you mean learning_rate\?\)"),
        ({"model_name_or_path": None}, "model_name_or_path is missing"),
        ({"domain": None}, "domain is missing"),
        ({"general": HELD_OUT}, "general and ratio"),
        ({"ratio": "2:8"}, "general and ratio"),
        ({"held_out_share": 1.5}, "held_out_share"),
        ({"held_out": HELD_OUT}, "held_out needs an evaluation"),
        ({"held_out_share": 0.1}, "held_out_share needs an evaluation"),
        ({"patience": 2}, "patience needs eval_strategy"),
        ({"load_in_4bit": True, "use_peft": False}, "QLoRA"),
        ({"require": "domain>=0.9"}, "require needs"),
        ({"publish": "roll", "use_peft": False}, "publish needs use_peft"),
        ({"env": {"HOME": "/"}}, "must not set environment variables"),
        ({"max_steps": "many"}, "max_steps"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoraComposeError, match=message) as refused:
        recipe(tmp_path, **values)
    assert refused.value.code == "invalid_recipe"


@pytest.mark.parametrize("content", ["[]", "a: [", "", "\x00"])
def test_a_file_that_is_not_a_recipe_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(LoraComposeError, match=r"recipe\.yaml"):
        read_recipe("sft", tmp_path / "recipe.yaml")


def test_an_unknown_option_of_the_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="lora_rr"):
        read_recipe("sft", written(tmp_path), ["--lora_rr", "4"])


def test_settings_do_not_contain_where_a_run_is_written(tmp_path: Path) -> None:
    settings = RunSettings.of(recipe(tmp_path / "a"))
    assert settings == RunSettings.of(recipe(tmp_path / "b"))
    assert settings != RunSettings.of(recipe(tmp_path / "b", seed=1))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_recipes_are_valid(file: Path) -> None:
    made = read_recipe(METHODS.get(file.stem, "sft"), file)
    assert made.output.parent.name == "runs"
