"""What is checked before the first step: users' most common silent failure is an empty or wrong loss mask."""

from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.run_record import PreparedFacts

IGNORED = -100
"""The label of a token without loss."""
SHOWN = 200
"""Tokens of the example; a packed row is long."""


def preflight(trainer: Any, tokenizer: Any, given: int) -> PreparedFacts:
    """Facts of the prepared data, with one example whose learnt part is in ⟦brackets⟧.

    `given` rows went in: TRL leaves out, without a word, those of which truncation left nothing to learn.
    Raises LoraComposeError("nothing_to_learn") or ("no_end_learnt").
    """
    rows = trainer.train_dataset
    if not len(rows):
        raise LoraComposeError(
            CommandCode.NOTHING_TO_LEARN, "No row has a token with a loss; see max_length.", "domain"
        )
    labels = rows["labels"][:]
    if not any(tokenizer.eos_token_id in own for own in labels):
        raise LoraComposeError(
            CommandCode.NO_END_LEARNT,
            f"No answer ends with {tokenizer.eos_token!r}: the adapter would never learn to stop. "
            "See eos_token, chat_template_path and max_length.",
            "eos_token",
        )
    return PreparedFacts(
        rows=len(rows),
        left_out=0 if trainer.args.packing else given - len(rows),
        learnt_tokens=sum(label != IGNORED for own in labels for label in own),
        tokens=sum(map(len, labels)),
        example=masked(rows[0]["input_ids"][:SHOWN], labels[0][:SHOWN], tokenizer),
    )


def preference_facts(trainer: Any, tokenizer: Any) -> PreparedFacts:
    """The same for pairs, of which both answers count."""
    row = trainer.train_dataset[0]
    asked, chosen = tokenizer.decode(row["prompt_ids"]), tokenizer.decode(row["chosen_ids"])
    return PreparedFacts(rows=len(trainer.train_dataset), left_out=0, example=f"{asked}⟦{chosen}⟧")


def masked(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    """The text, what has a loss in ⟦brackets⟧."""
    text, is_open = "", False
    for token, label in zip(ids, labels, strict=True):
        if (label != IGNORED) != is_open:
            is_open = not is_open
            text += "⟦" if is_open else "⟧"
        text += tokenizer.decode([token])
    return text + ("⟧" if is_open else "")
