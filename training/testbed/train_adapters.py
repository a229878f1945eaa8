"""Train the testbed's adapters on its base, with TRL's SFTTrainer and PEFT.

The same seed, base and machine give the same adapters, byte for byte. On other machines, expect the
accuracies of measured.json within 0.1, but other bytes. Only the two files of a PEFT adapter are kept.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Annotated, Any, Final

import torch
import typer
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from lora_compose.adapters.peft.files import FILES
from lora_compose.training.testbed.corpus import CorpusRow, training_rows
from lora_compose.training.testbed.measure import read_record, write_record
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, BASE_NAME


@dataclass(frozen=True)
class AdapterRecipe:
    """The settings of one adapter's training.

    Steps are few, because larger deltas were seen to compose worse.
    """

    steps: int = 150
    learning_rate: float = 2e-3
    batch: int = 48
    r: int = 8
    lora_alpha: int = 16


RECIPES: Final[Mapping[str, AdapterRecipe]] = {
    "roll": AdapterRecipe(steps=200),
    "dbl": AdapterRecipe(steps=300),
    "code": AdapterRecipe(steps=300, learning_rate=4e-3),
    "upper": AdapterRecipe(),
    "wrap": AdapterRecipe(),
    "okay": AdapterRecipe(),
    "bang": AdapterRecipe(),
    "polite": AdapterRecipe(),
}


def sft_config(recipe: AdapterRecipe, seed: int, scratch: str) -> SFTConfig:
    return SFTConfig(
        output_dir=scratch,
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(10, recipe.steps // 2),
        max_length=128,
        seed=seed,
        data_seed=seed,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_steps=50,
        save_strategy="no",
        report_to=[],
    )


def train_adapter(name: str, recipe: AdapterRecipe, base: Path, output: Path, seed: int) -> float:
    """Train on the rows for `name` and write the adapter's two files to `output`. Returns the seconds."""
    return train_on(training_rows(name, recipe.steps * recipe.batch, seed), recipe, base, output, seed)


def train_on(rows: Sequence[CorpusRow], recipe: AdapterRecipe, base: Path, output: Path, seed: int) -> float:
    """Train on `rows` and write the adapter's two files to `output`. Returns the seconds."""
    set_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lora = LoraConfig(
        r=recipe.r, lora_alpha=recipe.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model,
            args=sft_config(recipe, seed, scratch),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer,
            peft_config=lora,
        )
        trainer.train()
        keep_adapter(trainer.model, Path(scratch) / "adapter", output)
    return time.perf_counter() - start


def keep_adapter(model: Any, scratch: Path, output: Path) -> None:
    """Write only the adapter's two files, with the base's name in place of its path.

    `target_modules` is sorted, because PEFT holds it as a set.
    """
    model.save_pretrained(scratch)
    output.mkdir(parents=True, exist_ok=True)
    config, weights = FILES
    facts = json.loads((scratch / config).read_text())
    facts["base_model_name_or_path"] = BASE_NAME
    facts["target_modules"].sort()
    (output / config).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    copyfile(scratch / weights, output / weights)


def record(file: Path, name: str, facts: dict[str, Any]) -> None:
    write_record(file, "adapters", read_record(file).get("adapters", {}) | {name: facts})


def chosen(names: list[str]) -> list[str]:
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise typer.BadParameter(
            f"unknown adapter {', '.join(unknown)}; the adapters are {', '.join(RECIPES)}"
        )
    return names or list(RECIPES)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Adapters to train; by default all.")] = None,
    base: Annotated[Path, typer.Option(help="Directory of the base.", exists=True)] = BASE_DIR,
    output: Annotated[
        Path, typer.Option(help="Directory to write to, with a directory for each adapter.")
    ] = ADAPTERS_DIR,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps; by default that of the adapter's recipe.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the data.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads. The number changes the resulting bytes.")
    ] = 2,
) -> None:
    """Train the testbed's adapters on its base. Each takes about half a minute on two cores.

    Without --output, the shipped adapters are overwritten.

    - python -m lora_compose.training.testbed.train_adapters roll upper
    - python -m lora_compose.training.testbed.measure (measures the accuracy of the adapters)
    """
    torch.set_num_threads(threads)
    for name in chosen(names or []):
        recipe = RECIPES[name]
        if steps is not None:
            recipe = replace(recipe, steps=steps)
        seconds = train_adapter(name, recipe, base, output / name, seed)
        record(
            output.parent / "measured.json",
            name,
            asdict(recipe) | {"seed": seed, "seconds": round(seconds, 1)},
        )
        typer.echo(f"Wrote {output / name}: {recipe.steps} steps, {seconds:.0f} s")


if __name__ == "__main__":
    typer.run(main)
