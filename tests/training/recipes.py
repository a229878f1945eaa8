"""Recipes small enough for a test, on the embedded base and the shipped data."""

from pathlib import Path
from typing import Any

import yaml

from lora_compose.training.recipe import Recipe, read_recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR

SMALL: dict[str, Any] = {
    "model_name_or_path": str(BASE_DIR),
    "domain": [str(DATA_DIR / "roll.jsonl")],
    "lora_r": 4,
    "lora_dropout": 0.0,
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
HELD_OUT = [str(DATA_DIR / "roll-held-out.jsonl")]
TASKS: dict[str, Any] = {
    "domain_tasks": HELD_OUT,
    "general_tasks": [str(DATA_DIR / "general-held-out.jsonl")],
    "score_limit": 20,
}
PREFERENCES: dict[str, Any] = {"domain": [str(DATA_DIR / "upper-preferred.jsonl")]}


def written(directory: Path, **values: Any) -> Path:
    """A recipe file. Values of None are left out."""
    content = {**SMALL, "output_dir": str(directory / "run"), **values}
    file = directory / "recipe.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
    return file


def recipe(directory: Path, method: Method = "sft", **values: Any) -> Recipe:
    """The recipe, read from a file."""
    return read_recipe(method, written(directory, **values))
