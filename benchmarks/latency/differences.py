"""How far an arm's answers are from the exact stack of the same adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import httpx

from benchmarks.latency.document import Difference
from benchmarks.latency.right_answers import Expected, ask_alone, logprobs_of


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
