"""Checks of the tokenized rows before the first training step.

The most common silent mistake of users is an empty or wrong loss mask.
"""

from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import Base
from lora_compose.training.data.messages import Message
from lora_compose.training.run_record import PreparedFacts

IGNORED = -100
"""The label of a token without loss."""
SHOWN = 200
"""How many tokens of the example are shown. A packed row is long."""


def loss_mask_facts(trainer: Any, base: Base, row_count: int) -> PreparedFacts:
    """Facts of the tokenized rows, with one example whose tokens with a loss are in ⟦brackets⟧.

    `row_count` is the number of rows before tokenizing. TRL silently drops rows that have no answer tokens
    after truncation. Raises LoraComposeError("nothing_to_learn"), ("no_end_learnt") or ("chat_not_served").
    """
    rows = trainer.train_dataset
    if not len(rows):
        raise LoraComposeError(
            CommandCode.NOTHING_TO_LEARN,
            "No row has a token that contributes to the loss. Increase max_length, or check the answers.",
            "domain",
        )
    tokenizer, labels = base.tokenizer, rows["labels"][:]
    _check_end(base, labels)
    return PreparedFacts(
        rows=len(rows),
        left_out=0 if trainer.args.packing else row_count - len(rows),
        learnt_tokens=sum(label != IGNORED for row_labels in labels for label in row_labels),
        tokens=sum(map(len, labels)),
        example=masked(rows[0]["input_ids"][:SHOWN], labels[0][:SHOWN], tokenizer),
    )


def _check_end(base: Base, labels: list[list[int]]) -> None:
    """Check that an answer ends with a token at which a server with this base stops."""
    ends = base.chat.end_ids
    if any(token in ends for row_labels in labels for token in row_labels):
        return
    names = " or ".join(repr(base.chat.tokenizer.convert_ids_to_tokens(end)) for end in ends) or "no token"
    own = base.tokenizer.eos_token
    if any(base.tokenizer.eos_token_id in row_labels for row_labels in labels):
        raise LoraComposeError(
            CommandCode.CHAT_NOT_SERVED,
            f"Answers end with {own!r}, but a server with this base stops at {names} only. Add the id of "
            f"{own!r} to eos_token_id in the base's generation_config.json. Then eos_token is not needed.",
            "eos_token",
        )
    raise LoraComposeError(
        CommandCode.NO_END_LEARNT,
        f"No answer ends with {names}, so the adapter would not learn to stop. Check eos_token, "
        "chat_template_path and max_length. If the chat template ends turns with another token, add its id "
        "to eos_token_id in the base's generation_config.json.",
        "eos_token",
    )


def check_template(base: Base, conversation: list[Message]) -> None:
    """Check that the chat is written for training as a server with this base writes it.

    Raises LoraComposeError("chat_not_served") if `chat_template_path` changes it.
    """
    trained = base.tokenizer.apply_chat_template(conversation, return_dict=True)["input_ids"]
    if trained != base.chat.ids(conversation):
        raise LoraComposeError(
            CommandCode.CHAT_NOT_SERVED,
            "chat_template_path writes chats otherwise than the base's own template, which a server uses. "
            "Put the template into the base's directory as chat_template.jinja, and train without "
            "chat_template_path.",
            "chat_template_path",
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
