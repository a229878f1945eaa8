"""What a demo is about: a base, its adapters, the ways to combine them, questions, and who judges answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DemoRequest:
    """A way to name a composition in a request, and the styles to check in its answers."""

    label: str
    model: str | None = None
    """None means the base."""
    styles: tuple[str, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request."""
    combines: bool = False
    """Whether it has the skill and the styles, so that its answers may be right in both."""
    must_work: bool = False
    """Whether more than half of its answers must be right in both. A merge is lossy, so it need not work."""


@dataclass(frozen=True)
class DemoQuestion:
    """A question that asks for the skill, and its right answer without styles."""

    prompt: str
    right: str


@dataclass(frozen=True)
class Judgement:
    """Whether an answer is right in content, in form, and in both without any other text."""

    skill: bool
    style: bool
    both: bool


@dataclass(frozen=True)
class DemoSubject:
    """One base with its adapters. The demo uses nothing else of them."""

    base: str
    """What the server starts with, in words."""
    options: tuple[str, ...]
    """The options of `serve` that choose the base."""
    adapters_dir: Path
    adapters: tuple[str, ...]
    """The adapters that the arms use. Each is a directory in `adapters_dir`."""
    skill: str
    arms: tuple[DemoRequest, ...]
    questions: Callable[[int], Sequence[DemoQuestion]]
    """Gets a number, and returns so many questions."""
    judge: Callable[[str, DemoQuestion, Sequence[str]], Judgement]
    """Gets an answer, its question, and the styles that it should have."""
    count: int
    """How many questions each arm gets by default."""
    longest_answer: int
    """In tokens."""
    shows_whole_answers: bool
    """Whether answers are too long for a column of the table, and are listed below it."""
    caption: str
    try_prompts: tuple[tuple[str, str], ...]
    """Prompts to try, and the options of `lora-compose ask` for each."""
