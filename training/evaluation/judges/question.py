"""The question that an answer is judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_compose.training.data.messages import Message


@dataclass(frozen=True)
class Question:
    """A conversation up to the model's answer, and the right answer."""

    prompt: Sequence[Message]
    answer: str
    """The right answer."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of the row, for example `options` or `tolerance`. Judges read some of them."""
    place: str = ""
    """`file:line` of the row, for messages."""
