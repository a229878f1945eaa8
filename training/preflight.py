"""What is checked before the first step: users' most common silent failure is an empty or wrong loss mask."""

from typing import Any

from adapters.errors import LoraComposeError

IGNORED = -100
"""The label of a token without loss."""


def preflight(trainer: Any, tokenizer: Any) -> dict[str, Any]:
    """Facts of the prepared data, with one example whose learnt part is in ⟦brackets⟧.

    Raises LoraComposeError("nothing_to_learn"), ("no_end_learnt") or ("pad_is_end").
    """
    row = trainer.train_dataset[0]
    facts: dict[str, Any] = {"rows": len(trainer.train_dataset)}
    if "labels" not in row:
        return facts | {
            "example": tokenizer.decode(row["prompt_ids"]) + "⟦" + tokenizer.decode(row["chosen_ids"]) + "⟧"
        }
    learnt = [label for label in row["labels"] if label != IGNORED]
    if not learnt:
        raise LoraComposeError("nothing_to_learn", "The first row has no token with a loss.", "domain")
    ends = {tokenizer.eos_token_id}
    if not ends & set(learnt):
        raise LoraComposeError(
            "no_end_learnt",
            f"No answer ends with {tokenizer.eos_token!r}: the adapter would never learn to stop. "
            "See eos_token, chat_template_path and max_length.",
            "eos_token",
        )
    return facts | {
        "learnt_tokens": sum(
            sum(label != IGNORED for label in each["labels"]) for each in trainer.train_dataset
        ),
        "tokens": sum(len(each["input_ids"]) for each in trainer.train_dataset),
        "example": masked(row["input_ids"], row["labels"], tokenizer),
    }


def masked(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    """The text, what has a loss in ⟦brackets⟧."""
    text, is_open = "", False
    for token, label in zip(ids, labels, strict=True):
        if (label != IGNORED) != is_open:
            is_open = not is_open
            text += "⟦" if is_open else "⟧"
        text += tokenizer.decode([token])
    return text + ("⟧" if is_open else "")
