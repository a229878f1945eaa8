"""The expected answers: what each composition answers to each prompt of the pool when it is requested alone.

If two tokens are almost equally likely, other requests in the batch can change which one is chosen. An answer
is therefore compared with the expected one only up to the first near tie.

`difference` measures how far an arm's answers are from those of the exact stack of the same adapters.
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
"""In nats. If the two likeliest tokens are closer than this, rounding alone can swap them."""


@dataclass(frozen=True)
class Expected:
    """The tokens of an expected answer. A right answer has the same first `certain` tokens."""

    ids: tuple[int, ...]
    certain: int

    def accepts(self, ids: Sequence[int]) -> bool:
        """Whether an answer has the same certain tokens."""
        return tuple(ids[: self.certain]) == self.ids[: self.certain]


async def ask_alone(
    client: httpx.AsyncClient, model: str, prompts: Sequence[Sequence[int]], output_tokens: int
) -> list[Expected]:
    """Answers to `prompts`, requested one at a time.

    Raises LoraComposeError("no_reference") if the server refuses a request.
    """
    answers = []
    for prompt in prompts:
        choice = await complete(client, model, prompt, {"max_tokens": output_tokens, "logprobs": 2})
        ids = tuple(choice["token_ids"])
        answers.append(Expected(ids, certain_tokens(choice["logprobs"]["top_logprobs"])))
    return answers


async def logprobs_of(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    """The log-probability of each token of `answer`, in nats."""
    options = {"max_tokens": 1, "logprobs": 1, "echo": True}
    choice = await complete(client, model, [*prompt, *answer], options)
    logprobs: list[float] = choice["logprobs"]["token_logprobs"][len(prompt) : len(prompt) + len(answer)]
    return logprobs


async def complete(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], options: dict[str, Any]
) -> dict[str, Any]:
    """The only choice of a greedy completion, with its token ids."""
    greedy = {"ignore_eos": True, "temperature": 0, "return_token_ids": True, **options}
    reply = await client.post(PATH, json={"model": model, "prompt": list(prompt), **greedy})
    if not reply.is_success:
        raise LoraComposeError(
            CommandCode.NO_REFERENCE,
            f"The server refused the request for the expected answer of {model}: "
            f"{reply.status_code} {reply.text[:300]}",
        )
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def certain_tokens(top_logprobs: Sequence[dict[str, float]]) -> int:
    """Number of tokens before the first near tie, where the second likeliest token is closer than TIE."""
    for number, top in enumerate(top_logprobs):
        best, *others = sorted(top.values(), reverse=True)
        if others and best - others[0] < TIE:
            return number
    return len(top_logprobs)


@dataclass(frozen=True)
class Exact:
    """The exact stack's answers to the prompts of the pool, and the log-probability of each token."""

    answers: Sequence[Expected] = ()
    logprobs: Sequence[Sequence[float]] = ()


async def ask_exact_stack(
    client: httpx.AsyncClient, model: str, pool: Sequence[Sequence[int]], tokens: int
) -> Exact:
    """Request the answers of the stack `model`, one at a time."""
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
    """The share of equal greedy answers, and |Δ log p| in nats of the tokens of the exact stack's answers."""
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
