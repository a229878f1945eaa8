"""Prompts of an exact length, framed as the model's chat template frames what a user says."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.errors import LoraComposeError
from benchmarks.latency.plan import Plan
from benchmarks.workload import prompt as random_text
from server.client.http import Client

SAMPLE_CHARS = 2000
LEAST_OWN = 4
"""Tokens that a prompt must have besides its frame; a shorter one goes without."""


@dataclass(frozen=True)
class Words:
    """Ordinary tokens of a model, and what its chat template puts around them."""

    vocabulary: Sequence[int]
    before: Sequence[int] = ()
    after: Sequence[int] = ()


def words_of(client: Client, base: str) -> Words:
    """As its tokenizer makes them of random words; special tokens are in the frame only."""
    text = random_text(random.Random(0), SAMPLE_CHARS)
    plain = client.tokenize(base, text)
    try:
        framed = client.tokenize_chat(base, text)
    except LoraComposeError:  # a base without a chat template
        return Words(plain)
    middle = plain[1:-1]  # a tokenizer may join the ends with the frame
    starts = (at for at in range(len(framed)) if framed[at : at + len(middle)] == middle)
    start = next(starts, None)
    if start is None:
        return Words(plain)
    return Words(plain, framed[: start - 1], framed[start + len(middle) + 1 :])


def prompt_pool(plan: Plan, words: Words) -> list[list[int]]:
    """`plan.pool` prompts of exactly `prompt_tokens` tokens, from the seed."""
    draw = random.Random(f"{plan.seed}/prompts")
    own = plan.prompt_tokens - len(words.before) - len(words.after)
    before, after = words.before, words.after
    if own < LEAST_OWN:
        own, before, after = plan.prompt_tokens, (), ()
    return [[*before, *draw.choices(words.vocabulary, k=own), *after] for _ in range(plan.pool)]
