"""Ask a model many user messages at once, greedily, and read what it says."""

from collections.abc import Sequence
from typing import Any

import torch

LONGEST_ANSWER = 40
"""Tokens, that is letters; the longest right answer of the testbed has fewer."""


def ask(model: Any, tokenizer: Any, messages: Sequence[str], batch: int = 64) -> list[str]:
    """One greedy answer a user message, in order. The model is left in eval mode."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(messages), batch):
        chats = [[{"role": "user", "content": text}] for text in messages[start : start + batch]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        answers += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of exact matches."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)
