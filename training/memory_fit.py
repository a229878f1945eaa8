"""Whether a run needs gradient checkpointing: only if the plan without it does not fit into free memory.

Checkpointing computes activations twice, which costs about a third of the time of a step.
"""

from typing import Any, Final

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.base_model import load_tokenizer
from lora_compose.training.data.rows import whole_text
from lora_compose.training.dataset import Examples
from lora_compose.training.planning.memory import GIB, memory_of
from lora_compose.training.planning.models import read_shape
from lora_compose.training.planning.settings import OPTIMIZERS, PlanSettings
from lora_compose.training.recipe import Recipe

USED: Final = 0.9
"""Share of the free memory that a plan may use."""
TEMPLATE_TOKENS: Final = 32
"""An allowance for what a chat template adds to a row."""


def needs_checkpointing(recipe: Recipe, examples: Examples) -> tuple[bool, list[str]]:
    """Whether activations should be computed again, and a sentence about it.

    For a base whose shape is not known to the planner, the default stays.
    """
    default = bool(recipe.training.gradient_checkpointing)
    try:
        shape = read_shape(recipe.model.model_name_or_path)
        needed = memory_of(shape, plan_settings(recipe, longest_row(recipe, examples))).total
    except LoraComposeError:
        return default, []
    free = free_memory()
    if needed <= free * USED:
        return False, []
    return True, [
        f"gradient_checkpointing is on: without it, a step needs about {needed / GIB:.1f} GiB, and "
        f"{free / GIB:.1f} GiB are free"
    ]


def longest_row(recipe: Recipe, examples: Examples) -> int:
    """The tokens of the longest row, at most max_length."""
    columns = [name for name in examples.train.column_names if name != "label"]
    rows = examples.train.select_columns(columns)
    text = max((whole_text(row) for row in rows), key=len)
    length = len(load_tokenizer(recipe.model)(text)["input_ids"]) + TEMPLATE_TOKENS
    return min(length, recipe.training.max_length or length)


def plan_settings(recipe: Recipe, tokens: int) -> PlanSettings:
    """The settings of the recipe as the planner's, without gradient checkpointing."""
    training, model = recipe.training, recipe.model
    targets = model.lora_target_modules or "all-linear"
    rows = training.per_device_train_batch_size * (1 if recipe.method == "sft" else 2)
    return PlanSettings(
        method="qlora" if model.load_in_4bit else "lora" if model.use_peft else "full",
        seq_len=tokens,
        batch=rows,
        rank=model.lora_r,
        target_modules=(targets,) if isinstance(targets, str) else tuple(targets),
        lora_dropout=model.lora_dropout,
        optimizer=str(training.optim.value) if _is_planned(training.optim) else OPTIMIZERS[0],
        gradient_checkpointing=False,
        dtype=model.dtype if model.dtype in ("float32", "bfloat16", "float16") else None,
        compute_dtype="bfloat16" if training.bf16 else "float16" if training.fp16 else "float32",
        device="cpu" if training.use_cpu else "cuda",
    )


def _is_planned(optimizer: Any) -> bool:
    return getattr(optimizer, "value", optimizer) in OPTIMIZERS


def free_memory() -> int:
    """Free bytes of the first GPU, or of this machine without a GPU."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
