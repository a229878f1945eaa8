"""The recipe that `train init` writes, with a comment for each setting."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lora_compose.training.first_recipe import Suggestion
from lora_compose.training.recipe_defaults import Method

RECIPE_FILE, TRAIN_FILE, HELD_OUT_FILE = "recipe.yaml", "train.jsonl", "held-out.jsonl"
WHAT: Final[dict[Method, str]] = {
    "sft": "supervised fine-tuning: each row has an answer to learn",
    "dpo": "DPO: each row has a chosen and a rejected answer",
    "kto": "KTO: each row has an answer that is marked as good or bad",
}


def recipe_text(suggestion: Suggestion, directory: Path) -> str:
    """The recipe as YAML. Its data files are in `directory`."""
    sections = (_head, _data, _adapter, _training, _scores, _publishing)
    return "\n\n".join("\n".join(part(suggestion, directory)) for part in sections) + "\n"


def next_command(suggestion: Suggestion, directory: Path) -> str:
    """The command that trains the recipe."""
    return f"lora-compose train {suggestion.method} {directory / RECIPE_FILE}"


def _head(made: Suggestion, directory: Path) -> Iterator[str]:
    yield f"# {WHAT[made.method]}."
    yield f"#   {next_command(made, directory)}"
    yield "# Every key is an option of TRL or PEFT, or of lora-compose:"
    yield f"# lora-compose train {made.method} --help"
    yield f"model_name_or_path: {json.dumps(made.model)}"
    yield f"output_dir: {json.dumps(str(directory / 'run'))}"
    if made.method != "sft":
        yield "# Start from an adapter that can already write the good answers, trained by `train sft`:"
        yield "# init_adapter: DIR/run/adapter"


def _data(made: Suggestion, directory: Path) -> Iterator[str]:
    yield f"# {len(made.train)} rows to train on, {len(made.held_out)} held out. No prompt is in both."
    yield f"domain: [{json.dumps(str(directory / TRAIN_FILE))}]"
    yield f"held_out: [{json.dumps(str(directory / HELD_OUT_FILE))}]"
    yield "# If the model must not forget its other abilities, mix in general data, for example a fifth:"
    yield "# general: [general.jsonl]"
    yield '# ratio: "2:8"'
    yield f"# The longest row has {made.longest} tokens. Longer rows would be cut."
    yield f"max_length: {made.max_length}"


def _adapter(_: Suggestion, __: Path) -> Iterator[str]:
    yield "# The rank by the amount of data. The run prints the number and how it was found."
    yield "rank: auto"
    yield "lora_alpha: 32"
    yield "lora_dropout: 0.0"


def _training(made: Suggestion, _: Path) -> Iterator[str]:
    yield f"# {made.steps} steps. An adapter learns best from batches of up to 32 rows."
    yield f"num_train_epochs: {made.epochs}"
    yield f"per_device_train_batch_size: {made.batch}"
    yield f"per_device_eval_batch_size: {made.batch}"
    yield f"gradient_accumulation_steps: {made.accumulation}"
    yield f"gradient_checkpointing: {str(made.gradient_checkpointing).lower()}  # by the free memory"
    yield "# By the size of the base. If the loss jumps, divide by 3; if it hardly falls, multiply by 3."
    yield f"learning_rate: {made.learning_rate:.1e}"
    yield "lr_scheduler_type: cosine"
    yield f"warmup_steps: {made.steps // 20}"
    yield "logging_steps: 10"
    yield "# The checkpoint with the least loss on held-out rows is kept."
    yield "eval_strategy: epoch"
    yield "save_strategy: epoch"
    yield "load_best_model_at_end: true"
    yield "metric_for_best_model: eval_loss"


def _scores(made: Suggestion, directory: Path) -> Iterator[str]:
    file = json.dumps(str(directory / HELD_OUT_FILE))
    if made.method != "sft":
        yield "# The run is judged by answers to questions with right answers, before and after:"
        yield "# domain_tasks: [questions.jsonl]"
        return
    if made.judge is None:
        yield "# The answers are long texts, so equality would always be 0. Read some, or judge them by a"
        yield "# function of your own. The loss on held-out rows is measured in any case."
        yield f"# domain_tasks: [{file}]"
        return
    yield "# The model answers the held-out questions before and after the run."
    yield f"domain_tasks: [{file}]"
    yield f"judge: {made.judge}"


def _publishing(_: Suggestion, __: Path) -> Iterator[str]:
    yield "# To serve the adapter: register it under a name, and talk to it with `lora-compose ask`."
    yield "# publish: my-adapter"
