"""Ask a running server with the `openai` client, as any application would, and time the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from openai import OpenAI

LONGEST_ANSWER = 40
"""Tokens, that is letters."""


@dataclass(frozen=True)
class Reply:
    """One streamed answer. Times in seconds from sending the request."""

    text: str
    model: str
    tokens: int
    first: float
    total: float


def ask(client: OpenAI, model: str, prompt: str, body: Mapping[str, Any]) -> Reply:
    """The greedy answer of `model`; `body` holds fields the client does not know. Raises openai.APIError."""
    started = perf_counter()
    first, tokens, pieces, answered = 0.0, 0, [], model
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_completion_tokens=LONGEST_ANSWER,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=dict(body),
    )
    for chunk in stream:
        answered = chunk.model
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or perf_counter() - started
                pieces.append(choice.delta.content)
    total = perf_counter() - started
    return Reply("".join(pieces), answered, tokens, first or total, total)
