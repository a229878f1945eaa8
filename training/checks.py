"""Facts and checks of the tokenized rows before the first training step.

The most common silent mistake of users is an empty or wrong loss mask.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import Base
from lora_compose.training.data.labels import count_labels
from lora_compose.training.data.messages import Message
from lora_compose.training.data.rows import conversation_of
from lora_compose.training.dataset import Examples
from lora_compose.training.recipe import Recipe
from lora_compose.training.run_record import PreparedFacts
from lora_compose.training.schedule import schedule_of

IGNORED = -100
"""The label of a token without loss."""
SHOWN = 200
"""How many tokens of the example are shown. A packed row is long."""


def prepared_facts(recipe: Recipe, trainer: Any, base: Base, examples: Examples) -> PreparedFacts:
    """Facts of the tokenized rows, with one example whose tokens with a loss are in ⟦brackets⟧.

    TRL silently drops rows that have no answer tokens after truncation. Raises
    LoraComposeError("nothing_to_learn"), ("no_end_learnt") or ("chat_not_served").
    """
    if not len(trainer.train_dataset):
        raise LoraComposeError(
            CommandCode.NOTHING_TO_LEARN,
            "No row has a token that contributes to the loss. Increase max_length, or check the answers.",
            "domain",
        )
    found = (_masked_facts if recipe.method == "sft" else _answer_facts)(trainer, base, examples)
    sources = examples.facts.sources
    dropped = sum(source.dropped for source in sources)
    ends = (str(base.chat.tokenizer.convert_ids_to_tokens(end)) for end in base.chat.end_ids)
    return found.model_copy(
        update={
            "given": dropped + sum(source.rows for source in sources),
            "dropped": dropped,
            "template": _template(recipe, base),
            "end": " ".join(ends),
            "schedule": schedule_of(trainer.args, len(trainer.train_dataset)),
        }
    )


def _template(recipe: Recipe, base: Base) -> str:
    digest = hashlib.sha256(str(base.chat.tokenizer.chat_template).encode()).hexdigest()[:12]
    path = getattr(recipe.training, "chat_template_path", None)
    return f"{path or 'the chat template of the base'}, sha256 {digest}"


def _masked_facts(trainer: Any, base: Base, examples: Examples) -> PreparedFacts:
    """Facts of the rows of sft, which have token ids and labels."""
    rows, tokenizer = trainer.train_dataset, base.tokenizer
    labels = rows["labels"][:]
    _check_end(base, labels)
    parts = labels
    if "seq_lengths" in rows.column_names:  # packed
        parts = [
            part
            for own, lengths in zip(labels, rows["seq_lengths"], strict=True)
            for part in _split(own, lengths)
        ]
    limit, count = trainer.args.max_length, len(examples.train)
    is_packed_blindly = trainer.args.packing and parts is labels
    at_limit = limit is not None and (len(parts) < count or max(map(len, parts)) >= limit)
    lengths = _lengths(base, examples.train) if at_limit else []
    return PreparedFacts(
        rows=len(rows),
        left_out=0 if is_packed_blindly else max(count - len(parts), 0),
        learnt_tokens=sum(label != IGNORED for own in labels for label in own),
        tokens=sum(map(len, labels)),
        example=masked(rows[0]["input_ids"][:SHOWN], labels[0][:SHOWN], tokenizer),
        cut=sum(length > limit for length in lengths),
        endless=0 if is_packed_blindly else sum(not _ends(base, own) for own in parts),
        longest=max(lengths, default=max(map(len, parts))),
    )


def _split(values: Sequence[int], lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    return (values[start:end] for start, end in pairwise(accumulate(lengths, initial=0)))


def _ends(base: Base, ids: Sequence[int]) -> bool:
    return any(end in ids for end in base.chat.end_ids)


def _lengths(base: Base, rows: Any) -> list[int]:
    return [len(base.chat.ids(conversation_of(row))) for row in rows]


def _check_end(base: Base, labels: list[list[int]]) -> None:
    """Check that an answer ends with a token at which a server with this base stops."""
    if any(_ends(base, row_labels) for row_labels in labels):
        return
    ends = base.chat.end_ids
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


@dataclass(frozen=True)
class _Answers:
    """The tokens of a row of dpo or kto. TRL cuts each answer so that prompt and answer fit."""

    prompt: Sequence[int]
    answers: tuple[Sequence[int], ...]

    def kept(self, limit: int | None) -> list[Sequence[int]]:
        return [answer if limit is None else answer[: limit - len(self.prompt)] for answer in self.answers]

    def length(self) -> int:
        return len(self.prompt) + max(map(len, self.answers))


ANSWERS = (("chosen_ids", "rejected_ids"), ("completion_ids",))
"""TRL's columns of answers, for dpo and kto."""


def _answer_facts(trainer: Any, base: Base, examples: Examples) -> PreparedFacts:
    """Facts of preference pairs, or of good and bad answers.

    The example shows the prompt and the chosen answer, or the answer.
    """
    rows, limit = trainer.train_dataset, trainer.args.max_length
    columns = next(names for names in ANSWERS if names[0] in rows.column_names)
    plain = rows.select_columns(["prompt_ids", *columns])
    parts = [_Answers(row["prompt_ids"], tuple(row[name] for name in columns)) for row in plain]
    kept = [part.kept(limit) for part in parts]
    lengths = [part.length() for part in parts]
    learnt = sum(len(answer) for answers in kept for answer in answers)
    prompt, answer = (base.tokenizer.decode(ids[:SHOWN]) for ids in (parts[0].prompt, kept[0][0]))
    labels = count_labels(rows["label"]) if "label" in rows.column_names else (None, None)
    return PreparedFacts(
        rows=len(rows),
        left_out=len(examples.train) - len(rows),
        example=f"{prompt}⟦{answer}⟧",
        learnt_tokens=learnt,
        tokens=learnt + sum(len(part.prompt) * len(columns) for part in parts),
        cut=sum(length > limit for length in lengths) if limit is not None else 0,
        endless=sum(not all(_ends(base, answer) for answer in answers) for answers in kept),
        longest=max(lengths),
        same=sum(len(answers) > 1 and answers[0] == answers[1] for answers in kept),
        good=labels[0],
        bad=labels[1],
    )


def masked(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    """The text of `ids`, with the tokens that have a loss in ⟦brackets⟧."""
    text, is_open = "", False
    for token, label in zip(ids, labels, strict=True):
        if (label != IGNORED) != is_open:
            is_open = not is_open
            text += "⟦" if is_open else "⟧"
        text += tokenizer.decode([token])
    return text + ("⟧" if is_open else "")
