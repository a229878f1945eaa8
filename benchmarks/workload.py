"""The requests of the studies: prompts of random words, and answers of a fixed length."""

import random
from collections.abc import Iterator
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def prompt(draw: random.Random, chars: int) -> str:
    """Exactly `chars` characters of lower-case words. The first words are random too, so prefixes differ."""
    text = ""
    while len(text) < chars:
        text += "".join(draw.choices(LETTERS, k=draw.randint(3, 8))) + " "
    return text[: chars - 1] + draw.choice(LETTERS)


class Prompts:
    """An endless sequence of different prompts. One seed always gives the same sequence."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def take(self, count: int, chars: int) -> Iterator[str]:
        """The next `count` prompts of `chars` characters."""
        for _ in range(count):
            yield prompt(self._draw, chars)


def completion_body(model: str, text: str, max_tokens: int, *, stream: bool) -> dict[str, Any]:
    """The body of a `POST /v1/completions` whose answer has exactly `max_tokens` tokens."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": text,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body
