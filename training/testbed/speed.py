"""Is training here as fast as plain TRL? `python -m lora_compose.training.testbed.speed`: the same run both ways, in turn.

Each way reads the same file, trains the same adapter and saves it; ours checks, records and draws besides.
"""

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from datasets import load_dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from lora_compose.training.data.quiet_logs import hush
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import train
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR

TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 48,
    "learning_rate": 2e-3,
    "logging_steps": 10,
    "seed": 0,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "save_strategy": "no",
}


def ours(directory: Path, steps: int) -> float:
    """Seconds, and the adapter in `directory`."""
    values = {
        "model_name_or_path": BASE_DIR,
        "domain": DATA_DIR / "roll.jsonl",
        "lora_r": 8,
        "lora_alpha": 16,
    }
    values |= {"lora_dropout": 0.0, "output_dir": directory, "max_steps": steps, **TRAINING}
    began = time.perf_counter()
    train(
        read_recipe(
            "sft", None, [text for name, value in values.items() for text in (f"--{name}", str(value))]
        )
    )
    return time.perf_counter() - began


def plain(directory: Path, steps: int) -> float:
    """The same, as TRL's documentation has it."""
    began = time.perf_counter()
    set_seed(0)
    rows = load_dataset("json", data_files=str(DATA_DIR / "roll.jsonl"), split="train").map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
    )
    trainer = SFTTrainer(
        str(BASE_DIR),
        args=SFTConfig(output_dir=str(directory), max_steps=steps, report_to=[], **TRAINING),
        train_dataset=rows,
        peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()
    trainer.save_model(str(directory))
    return time.perf_counter() - began


def main(
    rounds: Annotated[int, typer.Option(min=2, help="Of both ways, in turn.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 60,
) -> None:
    """Print the ratio of ours to plain TRL's seconds, median and range over rounds."""
    hush()
    datasets.disable_caching()  # as on rows that were not trained on before
    ratios = []
    with tempfile.TemporaryDirectory(prefix="lora-compose-speed-") as scratch:
        for number in range(rounds + 1):  # the first of each imports and warms up
            ways = (ours, plain) if number % 2 else (plain, ours)
            taken = {}
            for way in ways:
                taken[way] = way(Path(scratch, way.__name__), steps)
                shutil.rmtree(Path(scratch, way.__name__))
            if number:
                ratios.append(taken[ours] / taken[plain])
                typer.echo(
                    f"ours {taken[ours]:.2f} s, plain TRL {taken[plain]:.2f} s, ratio {ratios[-1]:.3f}"
                )
    typer.echo(json.dumps({"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}))


if __name__ == "__main__":
    typer.run(main)
