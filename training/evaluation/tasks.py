"""Evaluation tasks: questions with right answers, from files of held-out rows.

`testbed:NAME` names a file that is shipped with the embedded base, for example `testbed:roll+upper`.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.data.messages import Message
from lora_compose.training.data.rows import read_rows

Kind = Literal["domain", "general"]
SHIPPED: Final = "testbed:"
SHIPPED_DIR: Final = Path(__file__).resolve().parents[1] / "testbed" / "questions"
SHIPPED_ROWS: Final = 200
"""Rows of a shipped file for each seed, and the default limit. The rows of seed 1 follow those of seed 0."""


@dataclass(frozen=True)
class Question:
    """A conversation up to the model's answer, and the right answer, which must match exactly."""

    prompt: Sequence[Message]
    answer: str


@dataclass(frozen=True)
class Task:
    """Questions with one common score."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """sha256 of the questions and right answers."""
        text = json.dumps([[list(q.prompt), q.answer] for q in self.questions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_tasks(sources: Sequence[str], kind: Kind, *, limit: int | None = None, seed: int = 0) -> list[Task]:
    """A task for each source, in order. Each has at most `limit` questions, drawn by the seed.

    Raises DataRejected for bad rows, InvalidRequest("unknown_task") and ("not_a_task").
    """
    return [Task(source, kind, _questions(source, limit, seed)) for source in sources]


def _questions(source: str, limit: int | None, seed: int) -> tuple[Question, ...]:
    if not source.startswith(SHIPPED):
        return _drawn(_read(source), limit, seed)
    questions = _read(str(shipped_file(source.removeprefix(SHIPPED))))
    start = seed * SHIPPED_ROWS % len(questions)
    return tuple([*questions[start:], *questions[:start]][: limit or SHIPPED_ROWS])


def _drawn(questions: Sequence[Question], limit: int | None, seed: int) -> tuple[Question, ...]:
    if limit is None or len(questions) <= limit:
        return tuple(questions)
    return tuple(random.Random(seed).sample(list(questions), limit))


def shipped_file(name: str) -> Path:
    """The file of `testbed:NAME`. The order of the members in NAME does not matter.

    Raises InvalidRequest("unknown_task")."""
    files = {path.stem: path for path in SHIPPED_DIR.glob("*.jsonl")}
    found = files.get("+".join(sorted(name.split("+"))))
    if found is None:
        known = ", ".join(sorted(stem for stem in files if "+" not in stem))
        message = (
            f"There is no task {SHIPPED}{name}. The testbed has {known}, and combinations such as roll+upper"
        )
        raise InvalidRequest(CommandCode.UNKNOWN_TASK, message, "tasks")
    return found


def _read(source: str) -> list[Question]:
    rows = read_rows(source)
    rows.refuse_tools("scored as questions")
    if rows.form == "preference":
        raise InvalidRequest(
            CommandCode.NOT_A_TASK, f"{source} has preferences: use it with --preferences", "tasks"
        )
    return [_question(row) for row in rows.dataset]


def _question(row: Mapping[str, Any]) -> Question:
    """The question of a row. In a longer conversation, the last answer is the right answer."""
    if "completion" in row:
        return Question(row["prompt"], single_answer(row["completion"]))
    *before, last = row["messages"]
    return Question(before, last["content"])


def single_answer(messages: Sequence[Message]) -> str:
    """The content of the only message. Raises InvalidRequest("several_messages") if there are more."""
    if len(messages) != 1:
        raise InvalidRequest(
            CommandCode.SEVERAL_MESSAGES,
            f"An answer with {len(messages)} messages cannot be scored: it must be one message",
            "tasks",
        )
    return messages[0]["content"]
