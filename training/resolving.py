"""Settings that depend on the rows, the base and the machine: rank, KTO's weights, gradient checkpointing.

A setting that the recipe gives is never changed. Each setting that is found here is reported in one sentence.
"""

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lora_compose.training.adapter_size import count_bits, parameters_per_rank, rank_for
from lora_compose.training.data.labels import count_labels
from lora_compose.training.dataset import Examples
from lora_compose.training.memory_fit import needs_checkpointing
from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_defaults import AUTO, FULL_LEARNING_RATES

KTO_WEIGHTS: Final = ("desirable_weight", "undesirable_weight")


@dataclass
class _Found:
    """Settings of TRL's config of the method and of ModelConfig, and what is said about them."""

    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def resolve(recipe: Recipe, examples: Examples) -> tuple[Recipe, list[str]]:
    """The recipe with the settings that it leaves to us, and one sentence for each of them.

    Raises LoraComposeError("base_not_loaded").
    """
    found = _Found()
    if not recipe.model.use_peft and "learning_rate" not in recipe.given:
        found.training["learning_rate"] = FULL_LEARNING_RATES[recipe.method]
    if recipe.method == "kto":
        _balance(recipe, examples, found)
    if recipe.adapter.rank is not None:
        _size(recipe, examples, found)
    recipe = replace(
        recipe, training=_changed(recipe.training, found.training), model=_changed(recipe.model, found.model)
    )
    if "gradient_checkpointing" in recipe.given:
        return recipe, found.remarks
    is_needed, remark = needs_checkpointing(recipe, examples)
    checkpointing = _changed(recipe.training, {"gradient_checkpointing": is_needed})
    return replace(recipe, training=checkpointing), [*found.remarks, *remark]


def _changed(options: Any, values: dict[str, Any]) -> Any:
    """A copy of TRL's options with other values."""
    made = copy(options)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _balance(recipe: Recipe, examples: Examples, found: _Found) -> None:
    """Give the rarer label the larger weight, so that both labels weigh the same in total.

    The paper asks for a ratio of the two totals in [1, 4/3] (KTO, arXiv:2402.01306, section 4.2); this is 1.
    """
    good, bad = count_labels(examples.train["label"])
    if recipe.given & set(KTO_WEIGHTS) or not good or not bad:
        return
    found.training = {
        "desirable_weight": max(1.0, round(bad / good, 4)),
        "undesirable_weight": max(1.0, round(good / bad, 4)),
    }
    weights = ", ".join(f"{name} {value:g}" for name, value in found.training.items())
    found.remarks.append(f"{good} good and {bad} bad answers are balanced by their numbers: {weights}")


def _size(recipe: Recipe, examples: Examples, found: _Found) -> None:
    rank = recipe.adapter.rank
    if rank != AUTO:
        found.model["lora_r"] = int(str(rank))
        return
    bits = count_bits(recipe, examples.train)
    each = parameters_per_rank(recipe.model)
    found.model["lora_r"] = rank_for(bits, each)
    found.remarks.append(
        f"rank {found.model['lora_r']}: the rows hold at most {bits} bits (one for each "
        f"{'token with a loss' if recipe.method == 'sft' else 'row'}), and an adapter stores about 2 bits in "
        f"each of its {each} parameters per rank"
    )
