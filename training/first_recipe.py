"""`train init`: look at a person's rows and a base, and suggest the settings of a first run.

The learning rate is that of Tinker's documentation for Llama (Thinking Machines Lab, "SL hyperparams"):
5e-5 * 10 * (2000 / hidden size) ** 0.781, ten times the rate of full fine-tuning. For dpo and kto, it is a
fortieth of that, the ratio of the rates in TRL's scripts with `use_peft` (5e-6 to 2e-4).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.adapter_size import load_config
from lora_compose.training.base_model import load_tokenizer
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.labels import RATINGS, LabelRule
from lora_compose.training.data.messages import Message
from lora_compose.training.data.rows import BadRows, ReadOptions, Rows, prompt_text, read_rows
from lora_compose.training.data.unpaired import read_unpaired
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.memory_fit import USED, free_memory
from lora_compose.training.planning.memory import memory_of
from lora_compose.training.planning.models import read_shape
from lora_compose.training.planning.settings import PlanSettings
from lora_compose.training.recipe_defaults import Method

EMBEDDED_BASE: Final = Path(__file__).resolve().parent / "testbed" / "base"
LEAST_ROWS: Final = 10
"""Fewer rows teach nothing that can be measured."""
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 200
WANTED_STEPS, MOST_EPOCHS = 150, 10
SMALL_DATA: Final = 1000
"""Up to this many rows, a step has 8 rows, and 16 above."""
PREFERENCE_RATE: Final = 1 / 40
ROUNDED: Final = 16


@dataclass(frozen=True)
class Suggestion:
    """The settings of a first run, and the rows to train on and to hold out."""

    method: Method
    model: str
    train: Any
    held_out: Any
    longest: int
    max_length: int
    batch: int
    accumulation: int
    gradient_checkpointing: bool
    epochs: int
    steps: int
    learning_rate: float
    judge: str | None
    """The judge that fits the answers. None if no judge by code fits."""
    notes: tuple[str, ...]


def suggest(source: str, model: str, rule: LabelRule, bad_rows: BadRows, seed: int = 0) -> Suggestion:
    """Read the rows and the files of the base, without its weights.

    Raises DataRejected for the rows, and LoraComposeError: "base_not_loaded", "chat_template_failed",
    "too_few_rows".
    """
    method, rows = _read(source, rule, ReadOptions(bad_rows))
    if len(rows.dataset) < LEAST_ROWS:
        raise LoraComposeError(
            CommandCode.TOO_FEW_ROWS,
            f"{source} has {len(rows.dataset)} rows. At least {LEAST_ROWS} are needed",
            "source",
        )
    named = SimpleNamespace(model_name_or_path=model, model_revision=None)
    config = load_config(named)
    train, held_out = _split(rows.dataset, seed)
    longest = max(_lengths(load_tokenizer(named), rows.dataset))
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or longest
    max_length = min(ROUNDED * math.ceil(longest / ROUNDED), context)
    total = 8 if len(train) <= SMALL_DATA else 16
    batch, checkpointing = _batch(model, method, total, max_length)
    each = math.ceil(len(train) / total)
    epochs = min(max(math.ceil(WANTED_STEPS / each), 1), MOST_EPOCHS)
    notes = [*rows.remarks, *_looks_rated(rows), *_too_long(longest, context)]
    return Suggestion(
        method=method,
        model=model,
        train=train,
        held_out=held_out,
        longest=longest,
        max_length=max_length,
        batch=batch,
        accumulation=total // batch,
        gradient_checkpointing=checkpointing,
        epochs=epochs,
        steps=epochs * each,
        learning_rate=_rate(config.get_text_config().hidden_size, method),
        judge=_judge(list(_answers(held_out))) if method == "sft" else None,
        notes=tuple(notes),
    )


def _read(source: str, rule: LabelRule, options: ReadOptions) -> tuple[Method, Rows]:
    """The method that the rows are for. Rows with a rule for labels, or with bad answers, are for kto."""
    if rule != LabelRule():
        return "kto", read_unpaired(source, options, rule)
    try:
        rows = read_rows(source, options)
    except DataRejected as refused:
        if refused.code != CommandCode.WRONG_FORM:
            raise
        return "kto", read_unpaired(source, options, rule)
    return "dpo" if rows.form == "preference" else "sft", rows


def _looks_rated(rows: Rows) -> Iterator[str]:
    rated = next((name for name in rows.left_out if name.strip().casefold() in RATINGS), None)
    if rated is not None:
        yield (
            f"The column {rated} is not used. If it rates the answers, run this command again with "
            f"--label-column {rated} and --good-from, for KTO"
        )


def _too_long(longest: int, context: int) -> Iterator[str]:
    if longest > context:
        yield f"The longest row has {longest} tokens, but the base has a context of {context}. It will be cut"


def _split(rows: Any, seed: int) -> tuple[Any, Any]:
    """Training and held-out rows. All rows with the same prompt are in the same part."""
    prompts = [prompt_text(row) for row in rows.select_columns(_texts(rows))]
    order = sorted(set(prompts))
    random.Random(seed).shuffle(order)
    wanted = min(max(round(len(rows) * HELD_OUT_SHARE), 1), MOST_HELD_OUT)
    held: set[str] = set()
    for prompt in order:
        if sum(other in held for other in prompts) >= wanted or len(held) + 1 >= len(order):
            break
        held.add(prompt)
    parts = ([n for n, prompt in enumerate(prompts) if (prompt in held) == kept] for kept in (False, True))
    train, held_out = (rows.select(numbers) for numbers in parts)
    return train, held_out


def _texts(rows: Any) -> list[str]:
    return [name for name in rows.column_names if name != "label"]


def _conversations(row: Any) -> Iterator[list[Message]]:
    """All conversations of a row: two for a preference."""
    if "messages" in row:
        yield row["messages"]
        return
    for column in ("completion", "chosen", "rejected"):
        if column in row:
            yield [*row["prompt"], *row[column]]


def _lengths(tokenizer: Any, rows: Any) -> list[int]:
    chat = ServedChat.of(tokenizer, SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None)))
    return [len(chat.ids(talk)) for row in rows for talk in _conversations(row)]


def _batch(model: str, method: Method, total: int, tokens: int) -> tuple[int, bool]:
    """The rows on the device at once, and whether activations are computed again."""
    least = 2 if method == "kto" else 1
    try:
        shape = read_shape(model)
    except LoraComposeError:
        return max(least, 2), True
    free, rows_each = free_memory() * USED, 1 if method == "sft" else 2
    plan = PlanSettings(
        method="lora", seq_len=tokens, gradient_checkpointing=False, dtype="float32", device=_device()
    )
    batch = total
    for checkpointing in (False, True):
        batch = total
        while batch >= least:
            settings = replace(plan, batch=batch * rows_each, gradient_checkpointing=checkpointing)
            if memory_of(shape, settings).total <= free:
                return batch, checkpointing
            batch //= 2
    return least, True


def _device() -> Any:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _rate(hidden: int, method: Method) -> float:
    rate = 5e-5 * 10 * (2000 / hidden) ** 0.781
    return float(f"{rate * (1 if method == 'sft' else PREFERENCE_RATE):.1e}")


def _answers(rows: Any) -> Iterator[str]:
    for row in rows:
        yield (row["messages"] if "messages" in row else row["completion"])[-1]["content"]


def _judge(answers: Sequence[str]) -> str | None:
    """A judge by the kind of the answers: objects and lists, numbers, or short texts."""
    import json

    def is_json(text: str) -> bool:
        try:
            return isinstance(json.loads(text), dict | list)
        except ValueError:
            return False

    if all(map(is_json, answers)):
        return "json"
    if all(text.strip().lstrip("-").replace(".", "", 1).isdecimal() for text in answers):
        return "numeric"
    return "exact" if max(len(text.split()) for text in answers) <= 8 else None
