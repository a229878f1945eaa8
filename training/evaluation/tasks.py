"""What is asked, and what the right answer is: held-out rows of files, or the testbed's own by name."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from adapters.errors import InvalidRequest
from training.data.messages import Message
from training.data.reading import read_rows
from training.testbed.corpus import exchange
from training.testbed.tasks import SKILLS, STYLES, answer, prompt, words_for
from training.testbed.words import held_out_word

Kind = Literal["domain", "general"]
TESTBED: Final = "testbed:"


@dataclass(frozen=True)
class Question:
    """A conversation up to where the model speaks, and the answer that is right to the letter."""

    prompt: Sequence[Message]
    answer: str


@dataclass(frozen=True)
class Task:
    """Questions that are scored together."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """sha256 of what is asked and what is right."""
        text = json.dumps([[list(q.prompt), q.answer] for q in self.questions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_tasks(sources: Sequence[str], kind: Kind, *, limit: int | None = None, seed: int = 0) -> list[Task]:
    """A task for each source, in order; at most `limit` questions each, drawn by the seed.

    Raises DataRejected for bad rows, InvalidRequest("unknown_task") and ("not_a_task")."""
    return [
        Task(source, kind, _drawn(_questions(source, limit or 200, seed), limit, seed)) for source in sources
    ]


def _drawn(questions: Sequence[Question], limit: int | None, seed: int) -> tuple[Question, ...]:
    if limit is None or len(questions) <= limit:
        return tuple(questions)
    return tuple(random.Random(seed).sample(list(questions), limit))


def _questions(source: str, count: int, seed: int) -> list[Question]:
    if source.startswith(TESTBED):
        return _of_testbed(source.removeprefix(TESTBED), count, seed)
    rows = read_rows(source)
    if rows.form == "preference":
        raise InvalidRequest("not_a_task", f"{source} holds preferences: give it with --preferences", "tasks")
    return [_question(row) for row in rows.dataset]


def _question(row: Mapping[str, Any]) -> Question:
    """Of a longer conversation, its last answer."""
    if "completion" in row:
        return Question(row["prompt"], sole(row["completion"]))
    *before, last = row["messages"]
    return Question(before, last["content"])


def sole(messages: Sequence[Message]) -> str:
    """The one answer. Raises InvalidRequest("several_messages"): a dialogue has no one right answer."""
    if len(messages) != 1:
        raise InvalidRequest(
            "several_messages", f"An answer of {len(messages)} messages cannot be scored; give one", "tasks"
        )
    return messages[0]["content"]


def _of_testbed(name: str, count: int, seed: int) -> list[Question]:
    """`roll`, `upper`, `roll+upper`: a skill in styles; `general`: what the base was taught.

    No word in any of them was trained on."""
    if name == "general":
        rng = random.Random(f"general-{seed}")
        return [_asked(*exchange(rng, held_out_word)) for _ in range(count)]
    members = name.split("+")
    skills, styles = [m for m in members if m in SKILLS], [m for m in members if m in STYLES]
    if len(skills) + len(styles) != len(members) or len(skills) > 1:
        known = ", ".join([*SKILLS, *STYLES, "general"])
        raise InvalidRequest("unknown_task", f"{TESTBED}{name}: the testbed has {known}", "tasks")
    skill = skills[0] if skills else None
    return [
        _asked(prompt(skill, word), answer(skill, styles, word))
        for word in words_for(skill, count, 1000 + seed)
    ]


def _asked(text: str, right: str) -> Question:
    return Question([{"role": "user", "content": text}], right)
