"""Train SmolLM2's adapters with the recipes in `recipes/`, and keep them in `adapters/`.

    python -m lora_compose.training.testbed.smollm2.train_adapters

Each run is what `lora-compose train sft|dpo` does. The kept factors are in bfloat16, half as large.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from safetensors.torch import load_file, save_file

from lora_compose.adapters.peft.files import FILES
from lora_compose.training.recipe import read_recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.run import train
from lora_compose.training.testbed.smollm2.paths import (
    ADAPTERS_DIR,
    BASE_NAME,
    RECIPES_DIR,
    BaseModel,
    base_directory,
)

METHODS: Final[dict[str, Method]] = {
    "order": "sft",
    "triage": "sft",
    "greet": "sft",
    "sign": "sft",
    "terse": "dpo",
}
"""The adapters, and how each is trained."""


def keep_adapter(run: Path, output: Path) -> None:
    """Write the two files of an adapter with bfloat16 factors and the base's name in place of its path."""
    config, weights = FILES
    output.mkdir(parents=True, exist_ok=True)
    facts = json.loads((run / config).read_text())
    facts["base_model_name_or_path"] = BASE_NAME
    facts["target_modules"].sort()
    (output / config).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(run / weights).items()}
    save_file(tensors, output / weights, metadata={"format": "pt"})


def train_adapter(name: str, base: Path, runs: Path, output: Path, seed: int) -> None:
    """Run the recipe for `name` and keep its adapter in `output`."""
    options = ["--model-name-or-path", str(base), "--output-dir", str(runs / name), "--seed", str(seed)]
    recipe = read_recipe(METHODS[name], RECIPES_DIR / f"{name}.yaml", options)
    run = train(recipe, overwrite=True, on_progress=typer.echo)
    keep_adapter(run.adapter, output)
    typer.echo(f"Wrote {output}: {run.record.steps} steps, {run.record.seconds:.0f} s")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Adapters to train; by default all.")] = None,
    base: BaseModel = BASE_NAME,
    runs: Annotated[Path, typer.Option(help="Directory of the runs.")] = Path("runs/smollm2"),
    output: Annotated[
        Path, typer.Option(help="Directory to write to, with a directory for each adapter.")
    ] = ADAPTERS_DIR,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of the rows.")] = 0,
) -> None:
    """Train SmolLM2's adapters. Each takes about five minutes on two quiet cores.

    Without --output, the shipped adapters are overwritten.
    """
    for name in names or METHODS:
        if name not in METHODS:
            raise typer.BadParameter(f"there is no adapter {name}; the adapters are {', '.join(METHODS)}")
        train_adapter(name, base_directory(base), runs, output / name, seed)


if __name__ == "__main__":
    typer.run(main)
