"""A small validation set for tuning weights: questions with right answers, in any form that `eval` reads."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.tasks import Task, load_tasks

FEWEST_ROWS = 4


def read_validation(file: Path, judge: str, limit: int | None = None, seed: int = 0) -> Task:
    """The rows of `file`, at most `limit` of them, drawn by the seed.

    Raises LoraComposeError("bad_validation") for too few rows or a loss as judge, and as `load_tasks` does.
    """
    (task,) = load_tasks([str(file)], "domain", judge=judge, limit=limit, seed=seed)
    count = len(task.questions)
    if count < FEWEST_ROWS:
        raise _bad(
            f"{file} has {count} rows, but tuning needs at least {FEWEST_ROWS}. 32 or more are recommended"
        )
    if task.scored_by.needs_likelihood:
        raise _bad(f"The judge {task.scored_by.name} does not read answers. Choose one that does")
    return task


def halves(task: Task, seed: int) -> tuple[Task, Task]:
    """(rows for tuning, held-out rows), shuffled by `seed`. Rows of one prompt are all in the same half.

    Raises LoraComposeError("bad_validation") if all rows have one prompt."""
    counts = Counter(_prompt(question.prompt) for question in task.questions)
    prompts = list(counts)
    random.Random(seed).shuffle(prompts)
    tuned = set(prompts[: (len(prompts) + 1) // 2])
    if len(tuned) == len(prompts):
        raise _bad("The validation set needs at least two different prompts")
    parts: tuple[list, list] = [], []  # type: ignore[type-arg]
    for question in task.questions:
        parts[_prompt(question.prompt) not in tuned].append(question)
    return replace(task, questions=tuple(parts[0])), replace(task, questions=tuple(parts[1]))


def _prompt(messages: object) -> str:
    return repr(messages)


def _bad(message: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.BAD_VALIDATION, message, "rows")
