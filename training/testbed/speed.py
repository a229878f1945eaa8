"""Compare the speed of our training with that of plain TRL: the same run with both, in turn.

    python -m lora_compose.training.testbed.speed
    python -m lora_compose.training.testbed.speed --model smollm2

Both read the same file, train the same adapter and save it. Ours also checks the rows, writes the record and
draws the curves.
"""

import json
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from datasets import load_dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from lora_compose.training.data.quiet_logs import quiet_libraries
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import train
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR
from lora_compose.training.testbed.smollm2 import paths as smollm2


class Model(StrEnum):
    """A base of the comparison."""

    EMBEDDED = "embedded"
    SMOLLM2 = smollm2.BASE_NAME


@dataclass(frozen=True)
class Workload:
    """What both train: a base, rows of `prompt` and `completion`, steps, and options of SFTConfig."""

    base: Path
    rows: Path
    steps: int
    options: dict[str, Any]


def workload(model: Model, steps: int | None) -> Workload:
    """The workload of `model`; by default with 60 steps of 48 short rows, or 12 of 8 rows of English."""
    options = {
        "learning_rate": 2e-3,
        "logging_steps": 10,
        "seed": 0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    if model is Model.SMOLLM2:
        base = smollm2.base_directory(smollm2.BASE_NAME)
        rows = smollm2.DATA_DIR / "order.jsonl"
        return Workload(base, rows, steps or 12, options | {"per_device_train_batch_size": 8})
    return Workload(
        BASE_DIR, DATA_DIR / "roll.jsonl", steps or 60, options | {"per_device_train_batch_size": 48}
    )


def ours(work: Workload, directory: Path) -> float:
    """Train with our code into `directory`. Returns the seconds."""
    values = {"model_name_or_path": work.base, "domain": work.rows, "lora_r": 8, "lora_alpha": 16}
    values |= {"lora_dropout": 0.0, "output_dir": directory, "max_steps": work.steps, **work.options}
    start = time.perf_counter()
    train(
        read_recipe(
            "sft", None, [text for name, value in values.items() for text in (f"--{name}", str(value))]
        )
    )
    return time.perf_counter() - start


def plain(work: Workload, directory: Path) -> float:
    """Train the same adapter as TRL's documentation does. Returns the seconds."""
    start = time.perf_counter()
    set_seed(0)
    rows = load_dataset("json", data_files=str(work.rows), split="train").map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
    )
    trainer = SFTTrainer(
        str(work.base),
        args=SFTConfig(output_dir=str(directory), max_steps=work.steps, report_to=[], **work.options),
        train_dataset=rows,
        peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()
    trainer.save_model(str(directory))
    return time.perf_counter() - start


def main(
    model: Annotated[Model, typer.Option(help="The base to train.")] = Model.EMBEDDED,
    rounds: Annotated[int, typer.Option(min=2, help="Number of rounds, each with both trainings.")] = 5,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each training. The default depends on the model.")
    ] = None,
) -> None:
    """Print our seconds divided by plain TRL's seconds, as median and range over the rounds."""
    quiet_libraries()
    datasets.disable_caching()  # every run prepares its rows
    work = workload(model, steps)
    ratios = []
    with tempfile.TemporaryDirectory(prefix="lora-compose-speed-") as scratch:
        for number in range(rounds + 1):  # round 0 is not counted: it imports and warms up
            ways = (ours, plain) if number % 2 else (plain, ours)
            taken = {}
            for way in ways:
                taken[way] = way(work, Path(scratch, way.__name__))
                shutil.rmtree(Path(scratch, way.__name__))
            if number:
                ratios.append(taken[ours] / taken[plain])
                typer.echo(
                    f"ours {taken[ours]:.2f} s, plain TRL {taken[plain]:.2f} s, ratio {ratios[-1]:.3f}"
                )
    typer.echo(json.dumps({"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}))


if __name__ == "__main__":
    typer.run(main)
