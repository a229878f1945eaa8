r"""Compare the speed of our training with that of plain TRL: the same run with both, in turn.

    python -m lora_compose.training.testbed.speed
    python -m lora_compose.training.testbed.speed --model smollm2 --batch-size 8 --steps 12 \
        --rows training/testbed/smollm2/data/order.jsonl

Both read the same file, train the same adapter and save it. Ours also checks the rows, writes the record and
draws the curves.
"""

import json
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from datasets import load_dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from lora_compose.adapters.models.cache import resolve
from lora_compose.training.data.quiet_logs import quiet_libraries
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import train
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR

OPTIONS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "logging_steps": 10,
    "seed": 0,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "save_strategy": "no",
}


@dataclass(frozen=True)
class Workload:
    """What both train: a base, a file of rows with `prompt` and `completion`, rows a step, and steps."""

    base: str
    rows: Path
    batch_size: int
    steps: int

    @property
    def options(self) -> dict[str, Any]:
        """Options of TRL's SFTConfig."""
        return OPTIONS | {"per_device_train_batch_size": self.batch_size, "max_steps": self.steps}


def ours(work: Workload, directory: Path) -> float:
    """Train with our code into `directory`. Returns the seconds."""
    values = {"model_name_or_path": work.base, "domain": work.rows, "lora_r": 8, "lora_alpha": 16}
    values |= {"lora_dropout": 0.0, "output_dir": directory, **work.options}
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
        work.base,
        args=SFTConfig(output_dir=str(directory), report_to=[], **work.options),
        train_dataset=rows,
        peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()
    trainer.save_model(str(directory))
    return time.perf_counter() - start


def main(
    model: Annotated[
        str, typer.Option(help="The base: a directory, or a name of `lora-compose models list`.")
    ] = str(BASE_DIR),
    rows: Annotated[Path, typer.Option(exists=True, help="Rows with prompt and completion, as JSONL.")] = (
        DATA_DIR / "roll.jsonl"
    ),
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of each step.")] = 48,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 60,
    rounds: Annotated[int, typer.Option(min=2, help="Number of rounds, each with both trainings.")] = 5,
) -> None:
    """Print our seconds divided by plain TRL's seconds, as median and range over the rounds."""
    quiet_libraries()
    datasets.disable_caching()  # every run prepares its rows
    work = Workload(resolve(model), rows, batch_size, steps)
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
