"""Whether an answer is the arm's own: what each composition answers to each prompt of the pool, alone.

Two almost equally likely tokens may come either way when others are in the batch, so an answer is held to the
expected one up to the first token that was a near tie.

How far an arm's answers are from the exact stack of the same adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import httpx

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.benchmarks.client import PATH
from lora_compose.benchmarks.serving.results.document import Difference

TIE = 0.02
"""In nats: nearer than this, the two likeliest tokens may change places by rounding alone."""


@dataclass(frozen=True)
class Expected:
    """Tokens of an answer, of which the first `certain` must come."""

    ids: tuple[int, ...]
    certain: int

    def accepts(self, ids: Sequence[int]) -> bool:
        """Whether an answer may be this one."""
        return tuple(ids[: self.certain]) == self.ids[: self.certain]


async def ask_alone(
    client: httpx.AsyncClient, model: str, prompts: Sequence[Sequence[int]], output_tokens: int
) -> list[Expected]:
    """One request at a time. Raises LoraComposeError("no_reference") for what the server refuses."""
    found = []
    for prompt in prompts:
        choice = await complete(client, model, prompt, {"max_tokens": output_tokens, "logprobs": 2})
        ids = tuple(choice["token_ids"])
        found.append(Expected(ids, certain_tokens(choice["logprobs"]["top_logprobs"])))
    return found


async def logprobs_of(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    """What the server thinks of each token of a given answer, in nats."""
    asked = {"max_tokens": 1, "logprobs": 1, "echo": True}
    choice = await complete(client, model, [*prompt, *answer], asked)
    found: list[float] = choice["logprobs"]["token_logprobs"][len(prompt) : len(prompt) + len(answer)]
    return found


async def complete(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], options: dict[str, Any]
) -> dict[str, Any]:
    """The one choice of a greedy completion, with its token ids."""
    asked = {"ignore_eos": True, "temperature": 0, "return_token_ids": True, **options}
    reply = await client.post(PATH, json={"model": model, "prompt": list(prompt), **asked})
    if not reply.is_success:
        raise LoraComposeError(CommandCode.NO_REFERENCE, f"{model}: {reply.status_code} {reply.text[:300]}")
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def certain_tokens(top_logprobs: Sequence[dict[str, float]]) -> int:
    """How many tokens come before the first whose likeliest rival is nearer than TIE."""
    for number, top in enumerate(top_logprobs):
        best, *rivals = sorted(top.values(), reverse=True)
        if rivals and best - rivals[0] < TIE:
            return number
    return len(top_logprobs)


@dataclass(frozen=True)
class Exact:
    """The exact stack's answers to the pool's prompts, and the log-probability of each of their tokens."""

    answers: Sequence[Expected] = ()
    logprobs: Sequence[Sequence[float]] = ()


async def exactly(client: httpx.AsyncClient, model: str, pool: Sequence[Sequence[int]], tokens: int) -> Exact:
    """Ask the stack `model`, alone."""
    answers = await ask_alone(client, model, pool, tokens)
    pairs = zip(pool, answers, strict=True)
    return Exact(answers, [await logprobs_of(client, model, prompt, answer.ids) for prompt, answer in pairs])


async def difference(
    client: httpx.AsyncClient,
    arm: str,
    model: str,
    pool: Sequence[Sequence[int]],
    own: Sequence[Expected],
    exact: Exact,
) -> Difference:
    """Greedy answers in common, and |Δ log p| in nats of each token of the exact stack's answers."""
    gaps = []
    for prompt, answer, right in zip(pool, exact.answers, exact.logprobs, strict=True):
        theirs = await logprobs_of(client, model, prompt, answer.ids)
        gaps += [abs(a - b) for a, b in zip(theirs, right, strict=True)]
    same = [expected.accepts(mine.ids) for expected, mine in zip(exact.answers, own, strict=True)]
    return Difference(
        arm=arm,
        model=model,
        prompts=len(pool),
        same_answers=fmean(same),
        mean_abs_logprob=fmean(gaps),
        max_abs_logprob=max(gaps),
    )
