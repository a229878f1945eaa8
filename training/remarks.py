"""Advice about a run that does not stop it, one sentence each, shown before the first step."""

from collections.abc import Iterator
from typing import Any, Final

from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_defaults import LARGEST_BATCH
from lora_compose.training.run_record import PreparedFacts

TRL_2: Final[tuple[tuple[str, Any, str], ...]] = (
    ("use_liger_kernel", True, "set model_init_kwargs: {use_kernels: true}"),
    ("truncation_mode", "keep_end", "leave it out, and shorten long prompts in the data"),
    ("loss_type", "chunked_nll", "use loss_type: nll, which computes the same in parts"),
    ("packing_strategy", "bfd-requeue", "use packing_strategy: bfd_split"),
)
"""Settings that TRL 2.0 removes: name, value, and what to write instead."""


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
    yield from _removed(training, recipe.method)


def _removed(training: Any, method: str) -> Iterator[str]:
    for name, value, instead in TRL_2:
        if getattr(training, name, None) == value:
            yield f"TRL 2.0 removes {name}: {value}. For a recipe that lasts, {instead}"
    if getattr(training, "pad_token", None) is not None:
        yield "TRL 2.0 removes pad_token. For a recipe that lasts, set it in the base's tokenizer_config.json"
    if method == "sft" and training.label_smoothing_factor:
        yield "TRL 2.0 removes label_smoothing_factor. For a recipe that lasts, leave it out"
