"""Checks of the tokenized rows before the first training step.

The most common silent mistake of users is an empty or wrong loss mask.
"""

from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.run_record import PreparedFacts

IGNORED = -100
"""The label of a token without loss."""
SHOWN = 200
"""How many tokens of the example are shown. A packed row is long."""


def loss_mask_facts(trainer: Any, tokenizer: Any, row_count: int) -> PreparedFacts:
    """Facts of the tokenized rows, with one example whose tokens with a loss are in ⟦brackets⟧.

    `row_count` is the number of rows before tokenizing. TRL silently drops rows that have no answer tokens
    after truncation. Raises LoraComposeError("nothing_to_learn") or ("no_end_learnt").
    """
    rows = trainer.train_dataset
    if not len(rows):
        raise LoraComposeError(
            CommandCode.NOTHING_TO_LEARN,
            "No row has a token that contributes to the loss. Increase max_length, or check the answers.",
            "domain",
        )
    labels = rows["labels"][:]
    if not any(tokenizer.eos_token_id in row_labels for row_labels in labels):
        raise LoraComposeError(
            CommandCode.NO_END_LEARNT,
            f"No answer ends with {tokenizer.eos_token!r}, so the adapter would not learn to stop. "
            "Check eos_token, chat_template_path and max_length.",
            "eos_token",
        )
    return PreparedFacts(
        rows=len(rows),
        left_out=0 if trainer.args.packing else row_count - len(rows),
        learnt_tokens=sum(label != IGNORED for row_labels in labels for label in row_labels),
        tokens=sum(map(len, labels)),
        example=masked(rows[0]["input_ids"][:SHOWN], labels[0][:SHOWN], tokenizer),
    )


def preference_facts(trainer: Any, tokenizer: Any) -> PreparedFacts:
    """Facts of tokenized preference pairs. The example shows the first pair's prompt and chosen answer."""
    row = trainer.train_dataset[0]
    prompt, chosen = tokenizer.decode(row["prompt_ids"]), tokenizer.decode(row["chosen_ids"])
    return PreparedFacts(rows=len(trainer.train_dataset), left_out=0, example=f"{prompt}⟦{chosen}⟧")


def masked(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    """The text of `ids`, with the tokens that have a loss in ⟦brackets⟧."""
    text, is_open = "", False
    for token, label in zip(ids, labels, strict=True):
        if (label != IGNORED) != is_open:
            is_open = not is_open
            text += "⟦" if is_open else "⟧"
        text += tokenizer.decode([token])
    return text + ("⟧" if is_open else "")
