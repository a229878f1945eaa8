"""Fifty chats for greedy decoding, and texts whose log-probabilities are compared."""

from collections.abc import Mapping, Sequence
from typing import Final

from lora_compose.training.testbed.smollm2.forms import styled
from lora_compose.training.testbed.smollm2.questions import ordinary_questions
from lora_compose.training.testbed.smollm2.write_data import skill_rows

Chat = Sequence[Mapping[str, str]]

SYSTEMS: Final = (
    "You are a helpful assistant that answers in one sentence.",
    "You answer like a teacher of small children.",
    "Answer in French.",
    "You are a careful editor. Correct mistakes and say nothing else.",
    "You are a terse assistant. Use at most ten words.",
)
CONTINUED: Final = (
    ("Name a color.", "Blue.", "Name another one."),
    ("What is 7 times 8?", "7 times 8 is 56.", "And 7 times 9?"),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet.", "When did he live?"),
    ("Suggest a name for a dog.", "How about Biscuit?", "Something shorter, please."),
    ("Write a haiku about rain.", "Soft rain on the roof", "Now one about snow."),
)
SEED: Final = 18


def chats() -> list[Chat]:
    """Thirty ordinary questions, ten messages of customers, five system prompts, five of three turns."""
    questions = ordinary_questions("held_out")
    plain = questions[:30] + [str(row["prompt"]) for row in skill_rows("order", 5, "held_out", SEED)]
    plain += [str(row["prompt"]) for row in skill_rows("triage", 5, "held_out", SEED)]
    asked: list[Chat] = [[_user(text)] for text in plain]
    asked += [
        [{"role": "system", "content": system}, _user(question)]
        for system, question in zip(SYSTEMS, questions[30:], strict=False)
    ]
    asked += [
        [_user(first), {"role": "assistant", "content": reply}, _user(second)]
        for first, reply, second in CONTINUED
    ]
    return asked


def texts(count: int) -> list[Chat]:
    """Orders with right answers in the form of all styles."""
    rows = skill_rows("order", count, "held_out", SEED)
    styles = ("greet", "sign")
    return [
        [_user(str(row["prompt"])), {"role": "assistant", "content": styled(str(row["completion"]), styles)}]
        for row in rows
    ]


def _user(text: str) -> Mapping[str, str]:
    return {"role": "user", "content": text}
