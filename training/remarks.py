"""Advice about a run that does not stop it, one sentence each, shown before the first step."""

from collections.abc import Iterator

from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_defaults import LARGEST_BATCH
from lora_compose.training.run_record import PreparedFacts


def remarks(recipe: Recipe, facts: PreparedFacts) -> Iterator[str]:
    """What a user should know about the settings."""
    training = recipe.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    if recipe.model.use_peft and batch > LARGEST_BATCH:
        yield (
            f"A step has {batch} rows. Adapters learn better from batches of up to {LARGEST_BATCH} (LoRA "
            "without regret), unless a larger one was measured"
        )
    if training.bf16 and training.use_cpu:
        yield "bf16 is slower than float32 on most CPUs. Leave bf16 out"
    schedule = facts.schedule
    if schedule is not None and schedule.epochs < 1:
        yield f"The run ends after {schedule.epochs:.0%} of the rows. More steps would use the others too"
