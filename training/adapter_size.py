"""The rank of an adapter by the amount of data.

"LoRA without regret" (Schulman et al., Thinking Machines Lab, 2025): an adapter learns as well as all weights
do if its capacity is above the information in the data. A network stores about 2 bits in a parameter
(Allen-Zhu and Li, arXiv:2404.05405). A token with a loss holds about 1 bit, which is an upper bound: it
counts what would be needed to learn the rows by heart. A preference or a label holds at most 1 bit.

    rank = bits / (2 * parameters per rank), rounded up to a power of 2, from 8 to 64

The lower end costs nearly nothing. The upper end is where servers often have their limit.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import adapter_config, load_tokenizer, not_loaded
from lora_compose.training.data.rows import answers
from lora_compose.training.recipe import Recipe

BITS_PER_PARAMETER: Final = 2
LEAST, MOST = 8, 64


def rank_for(bits: int, parameters_per_rank: int) -> int:
    """The least power of 2 from LEAST to MOST whose adapter stores `bits`, or MOST."""
    needed = bits / (BITS_PER_PARAMETER * parameters_per_rank)
    return min(max(1 << math.ceil(math.log2(max(needed, 1))), LEAST), MOST)


def count_bits(recipe: Recipe, rows: Any) -> int:
    """The most bits that training can learn from the rows."""
    if recipe.method != "sft":
        return len(rows)
    return count_tokens(load_tokenizer(recipe.model), (text for row in rows for text in answers(row)))


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> int:
    """The tokens of answers, each with one for its end."""
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return sum(len(own) + 1 for own in ids)


def parameters_per_rank(model: Any) -> int:
    """The parameters of an adapter of rank 1. `model` is TRL's ModelConfig.

    The adapter is built on a copy of the base without memory. Raises LoraComposeError("base_not_loaded") if
    the config cannot be read, "invalid_recipe" if no module has the names of lora_target_modules.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    config = adapter_config(model)
    config.r = 1
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(load_config(model))
        try:
            adapted = get_peft_model(base, config)
        except ValueError as error:
            raise LoraComposeError(CommandCode.INVALID_RECIPE, str(error), "lora_target_modules") from error
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def load_config(model: Any) -> Any:
    """The config of the base. Raises LoraComposeError("base_not_loaded")."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    except (OSError, ValueError) as error:
        raise not_loaded(model, error) from error
