"""The types of the table of operations: what a route reads and answers."""

from dataclasses import dataclass, field
from typing import Any, Literal

from lora_compose.adapters.errors import Code

JSON, TEXT, HTML, STREAM = "application/json", "text/plain", "text/html", "text/event-stream"
FORM = "multipart/form-data"


ErrorShape = Literal["openai", "anthropic", "tgi", "ollama"]


@dataclass(frozen=True)
class Answer:
    """A successful response. `shape` is a type or a JSON schema; None for a response without a body."""

    shape: Any = None
    media: str = JSON
    streams: bool = False
    """Whether it may also come as a stream."""
    stream_media: str = STREAM
    stream_form: str = "`data: {...}` events. The last one is `data: [DONE]` or holds an `Error`."


NO_PATH = frozenset({Code.NOT_FOUND})
"""A name with a slash or a line break is another path."""


@dataclass(frozen=True)
class Operation:
    """`answers` are the successful responses by status. The error statuses follow from `codes`."""

    answers: dict[int, Answer]
    codes: frozenset[Code]
    body: Any = None
    upload: Any = None
    """The type of the body as multipart/form-data, if the route also reads that."""
    flag: str | None = None
    """The only query parameter of the route. It is true or false."""
    examples: tuple[dict[str, Any], ...] = ()
    error_shape: ErrorShape = "openai"
    """Whose shape the errors have."""
    summary: str = ""
    """The summary of a route without a docstring."""
    answer_headers: dict[str, str] = field(default_factory=dict)


def answers(shape: Any, *statuses: int) -> dict[int, Answer]:
    """The same JSON shape for each of the statuses, by default only 200."""
    return {status: Answer(shape) for status in statuses or (200,)}
