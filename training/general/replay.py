"""Self-replay: rows that the base answers itself, to be mixed into training as general data.

Training on the base's own answers holds it near to what it was. Use it where there are no general data. The
rows show what the base does, not what is right. Source: "Self-Synthesized Rehearsal", arXiv:2403.01244.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.data.messages import Message
from lora_compose.training.data.rows import ReadOptions
from lora_compose.training.data.unpaired import read_as_it_is
from lora_compose.training.evaluation.models import Loaded

PROMPTS_FILE: Final = Path(__file__).with_name("prompts.txt")
"""Ordinary prompts, written for this repository, one a line."""
BATCH: Final = 16
ROUNDS: Final = 3
"""A prompt is asked at most this often, if answers were dropped or there are fewer prompts than rows."""


@dataclass(frozen=True)
class Sampling:
    """How the answers are sampled."""

    rows: int = 200
    temperature: float | None = 0.7
    """None: the most likely token each time."""
    max_tokens: int = 256
    seed: int = 0


@dataclass
class Replayed:
    """The sampled rows, and how many answers were dropped because they had no end, or were empty."""

    rows: list[dict[str, Any]]
    endless: int = 0
    empty: int = 0


def load_prompts(source: str | None) -> list[list[Message]]:
    """The prompts of a file of rows, each up to its first answer, or the shipped ones.

    A `.txt` file has one prompt a line. Raises DataRejected, or InvalidRequest("source_not_found").
    """
    if source is None or source.endswith(".txt"):
        return _lines(PROMPTS_FILE if source is None else Path(source))
    found = []
    for row in read_as_it_is(source, ReadOptions()).dataset:
        messages = row.get("prompt") or row["messages"]
        end = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
        found.append(messages[:end])
    return found


def _lines(file: Path) -> list[list[Message]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            CommandCode.SOURCE_NOT_FOUND, f"{file} cannot be read: {error}", "prompts"
        ) from error
    found: list[list[Message]] = [
        [{"role": "user", "content": line.strip()}] for line in lines if line.strip()
    ]
    if not found:
        raise InvalidRequest(CommandCode.NO_ROWS, f"{file} has no prompts", "prompts")
    return found


def replay(
    loaded: Loaded,
    prompts: Sequence[Sequence[Message]],
    sampling: Sampling,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Sample up to `sampling.rows` rows from a base. Answers without an end are dropped.

    `on_progress` gets the number of rows so far. The same seed gives the same rows on the same machine.
    """
    import torch

    torch.manual_seed(sampling.seed)
    found, seen = Replayed([]), set[tuple[str, str]]()
    for batch in _batches(prompts, sampling):
        for prompt, answer in zip(batch, answered(loaded, batch, sampling), strict=True):
            if not answer.finished or not answer.text:
                found.endless += not answer.finished
                found.empty += answer.finished
            elif (str(prompt), answer.text) not in seen:
                seen.add((str(prompt), answer.text))
                found.rows.append(_row(prompt, answer.text))
        on_progress(len(found.rows))
        if len(found.rows) >= sampling.rows:
            break
    found.rows = found.rows[: sampling.rows]
    return found


def _batches(prompts: Sequence[Sequence[Message]], sampling: Sampling) -> Iterator[list[Sequence[Message]]]:
    draw = random.Random(sampling.seed)
    rounds = max(ROUNDS, -(-sampling.rows * ROUNDS // len(prompts)))
    order = [prompt for _ in range(rounds) for prompt in draw.sample(list(prompts), len(prompts))]
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


@dataclass(frozen=True)
class Answered:
    """An answer without white space around it, and whether it ended."""

    text: str
    finished: bool


def answered(loaded: Loaded, batch: Sequence[Sequence[Message]], sampling: Sampling) -> list[Answered]:
    """One answer for each prompt."""
    import torch

    chat = loaded.chat
    inputs = chat.prompts(batch).to(loaded.model.device)
    generation = chat.generation(sampling.max_tokens)
    if sampling.temperature is not None:
        generation.update(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)
    with torch.no_grad():
        output = loaded.model.generate(**inputs, generation_config=generation)
    answers = output[:, inputs["input_ids"].shape[1] :]
    has_end = torch.isin(answers, torch.tensor(chat.end_ids)).any(1).tolist()
    texts = chat.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [Answered(text.strip(), ended) for text, ended in zip(texts, has_end, strict=True)]


def _row(prompt: Sequence[Message], answer: str) -> dict[str, Any]:
    if len(prompt) == 1:
        return {"prompt": prompt[0]["content"], "completion": answer}
    return {"prompt": list(prompt), "completion": [{"role": "assistant", "content": answer}]}
