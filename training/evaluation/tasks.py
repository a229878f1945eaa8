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

from lora_compose.adapters.errors import CommandCode, InvalidRequest, LoraComposeError
from lora_compose.training.data.messages import Message
from lora_compose.training.data.rows import Origin, read_rows
from lora_compose.training.evaluation.judges.judge import Judge
from lora_compose.training.evaluation.judges.named import DEFAULT, JUDGES, judge_named, judge_of_row
from lora_compose.training.evaluation.judges.question import Question

Kind = Literal["domain", "general"]
KINDS: Final[tuple[Kind, ...]] = ("domain", "general")
JUDGE_COLUMN: Final = "judge"
"""The column of a row that names its judge."""
SHIPPED: Final = "testbed:"
SHIPPED_DIR: Final = Path(__file__).resolve().parents[1] / "testbed" / "questions"
SHIPPED_ROWS: Final = 200
"""Rows of a shipped file for each seed, and the default limit. The rows of seed 1 follow those of seed 0."""


@dataclass(frozen=True)
class Task:
    """Questions with one common score."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    judge: Judge = JUDGES[DEFAULT]
    """The judge of the questions whose rows name no other in their column `judge`."""

    @property
    def digest(self) -> str:
        """sha256 of the questions and right answers."""
        text = json.dumps([[list(q.prompt), q.answer] for q in self.questions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def scored_by(self) -> Judge:
        """The judge of the first question. All others have the same direction."""
        return self.judge_of(self.questions[0])

    def judge_of(self, question: Question) -> Judge:
        """The judge of one question. Raises the errors of `judge_of_row`."""
        named = question.fields.get(JUDGE_COLUMN)
        return self.judge if named is None else judge_of_row(named, question.place)

    def check(self) -> None:
        """Check that every answer can be judged.

        Raises LoraComposeError("cannot_judge") and the errors of `judge_of_row`, with the place of the row.
        """
        for question in self.questions:
            judge = self.judge_of(question)
            _check_mix(judge, self.scored_by, question.place)
            judge.check(question)


def _check_mix(judge: Judge, other: Judge, place: str) -> None:
    """A mean of losses and of right answers, or of losses and perplexities, has no meaning."""
    if (judge.needs_likelihood or other.needs_likelihood) and judge.name != other.name:
        raise LoraComposeError(
            CommandCode.CANNOT_JUDGE,
            f"{place}: the judges {judge.name} and {other.name} cannot be mixed: their mean has no meaning",
            "judge",
        )


def load_tasks(
    sources: Sequence[str], kind: Kind, *, limit: int | None = None, seed: int = 0, judge: str = DEFAULT
) -> list[Task]:
    """A task for each source, in order. Each has at most `limit` questions, drawn by the seed.

    Raises DataRejected for bad rows, InvalidRequest("unknown_task") and ("not_a_task"), and LoraComposeError
    for a judge that does not exist or cannot judge a row.
    """
    judged_by = judge_named(judge)
    tasks = [Task(source, kind, _questions(source, limit, seed), judged_by) for source in sources]
    for task in tasks:
        task.check()
        _check_mix(task.scored_by, tasks[0].scored_by, task.name)
    return tasks


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
    return [_question(row, origin) for row, origin in zip(rows.dataset, rows.origins, strict=True)]


def _question(row: Mapping[str, Any], origin: Origin) -> Question:
    """The question of a row. In a longer conversation, the last answer is the right answer."""
    if "completion" in row:
        return Question(row["prompt"], single_answer(row["completion"]), origin.columns, origin.place)
    *before, last = row["messages"]
    return Question(before, last["content"], origin.columns, origin.place)


def single_answer(messages: Sequence[Message]) -> str:
    """The content of the only message. Raises InvalidRequest("several_messages") if there are more."""
    if len(messages) != 1:
        raise InvalidRequest(
            CommandCode.SEVERAL_MESSAGES,
            f"An answer with {len(messages)} messages cannot be scored: it must be one message",
            "tasks",
        )
    return messages[0]["content"]
