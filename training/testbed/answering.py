"""Ask a model many user messages at once, greedily, and read what it says."""

from collections.abc import Sequence
from typing import Any

from training.data.messages import Message
from training.evaluation.answerers import LocalModel

LONGEST_ANSWER = 40
"""Tokens, that is letters; the longest right answer of the testbed has fewer."""


def ask(model: Any, tokenizer: Any, messages: Sequence[str]) -> list[str]:
    """One greedy answer a user message, in order."""
    prompts: list[list[Message]] = [[{"role": "user", "content": text}] for text in messages]
    return LocalModel(model, tokenizer).answer(prompts, LONGEST_ANSWER)


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of exact matches."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)
