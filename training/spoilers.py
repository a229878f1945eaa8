"""What would spoil a run, found before its first step. Each reason says what to change.

A run with a reason stops, unless the user asks for it with `--force`. A few bad rows do not stop a run: the
shares are below.
"""

from collections.abc import Iterator
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data.rows import whole_text
from lora_compose.training.dataset import Examples
from lora_compose.training.recipe import Recipe
from lora_compose.training.run_record import PreparedFacts, Schedule

FEW: Final = 0.05
"""Rows whose answer never ends, or has no token left, may be up to this share."""
HALF: Final = 0.5
"""Rows that are dropped or cut, and pairs of two equal answers, must be fewer than this share."""
LARGEST_RATE: Final = 0.1
"""No adapter learns at such a rate. It is a typing error."""


def refuse_spoiled(reasons: list[str]) -> None:
    """Raises LoraComposeError("run_spoiled") with one line for each reason."""
    if reasons:
        listed = "\n".join(f"- {reason}" for reason in reasons)
        raise LoraComposeError(
            CommandCode.RUN_SPOILED,
            f"This run would be spoiled, so it was not started:\n{listed}\nChange this, or start the run "
            "anyway with --force",
            "recipe",
        )


def spoilers(recipe: Recipe, examples: Examples, facts: PreparedFacts) -> list[str]:
    """What would spoil the run, one sentence each. Empty if the run can start."""
    found = [*_rows(recipe, facts), *_settings(recipe), *_held_out(examples)]
    if facts.schedule is not None:
        found += _steps(facts.schedule)
    return found


def _rows(recipe: Recipe, facts: PreparedFacts) -> Iterator[str]:
    limit, longest, count = recipe.training.max_length, facts.longest, facts.rows + facts.left_out
    raised = f"Set max_length to at least {longest}, or shorten the rows"
    if facts.left_out > FEW * count:
        yield f"{facts.left_out} of {count} prompts fill max_length ({limit}). {raised}"
    if facts.endless > FEW * facts.rows:
        why = f"max_length ({limit}) cuts them. {raised}" if facts.cut else "check the chat template"
        yield f"{facts.endless} of {facts.rows} answers never end, so the adapter learns not to stop: {why}"
    elif facts.cut >= HALF * count:
        yield f"{facts.cut} of {count} rows are cut at max_length ({limit}). {raised}"
    if facts.given and facts.dropped >= HALF * facts.given:
        yield (
            f"{facts.dropped} of {facts.given} rows are dropped as bad. Correct the data: the "
            "listed rows say what is wrong"
        )
    if facts.same and facts.same >= HALF * facts.rows:
        yield (
            f"Chosen and rejected answer are the same in {facts.same} of {facts.rows} pairs, so there "
            "is nothing to prefer. Leave these pairs out"
        )


def _settings(recipe: Recipe) -> Iterator[str]:
    rate = recipe.training.learning_rate
    if not 0 < rate < LARGEST_RATE:
        yield f"learning_rate is {rate:g}. Set it to a value such as 2e-4"
    if recipe.model.use_peft and recipe.start.init_adapter is None and recipe.model.lora_alpha == 0:
        yield "lora_alpha is 0, so the adapter would have no effect. Set it to a value such as 32"
    if getattr(recipe.training, "packing", False) and recipe.training.packing_strategy == "wrapped":
        yield (
            "packing_strategy wrapped cuts answers at the ends of blocks, and rows in a block read each "
            "other. Use packing_strategy: bfd"
        )
    if recipe.training.max_steps == 0 or (
        recipe.training.max_steps < 0 and recipe.training.num_train_epochs <= 0
    ):
        yield "The run has no steps. Set max_steps or num_train_epochs to a value above 0"


def _steps(schedule: Schedule) -> Iterator[str]:
    if 0 < schedule.steps <= schedule.warmup_steps:
        yield (
            f"The warm-up of {schedule.warmup_steps} steps is not shorter than the run of {schedule.steps} "
            f"steps, so the learning rate never reaches {schedule.learning_rate:g}. Set warmup_steps to "
            f"{schedule.steps // 20}"
        )


def _held_out(examples: Examples) -> Iterator[str]:
    if examples.held_out is None:
        return
    trained = set(_texts(examples.train))
    held_out = _texts(examples.held_out)
    seen = sum(text in trained for text in held_out)
    if seen >= HALF * len(held_out):
        yield (
            f"{seen} of {len(held_out)} held-out rows are also trained on, so their loss says nothing about "
            "new rows. Hold out other rows"
        )


def _texts(rows: Any) -> list[str]:
    columns = [name for name in rows.column_names if name != "label"]
    return [whole_text(row) for row in rows.select_columns(columns)]
