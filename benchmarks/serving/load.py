"""The load generator: sends requests in a closed or an open loop and times every chunk of every answer.

All requests are sent from one process. Times are seconds since the pass began, by `perf_counter`. Chunks are
kept as they arrive and are parsed after the pass, because the time for parsing would be measured too. A
request that fails is a row with a `failure`.

The requests depend on the seed only: one seed always gives the same requests at the same times. Prompts have
an exact length and use the model's chat template.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

import httpx

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.client import PATH
from lora_compose.benchmarks.llamacpp.vocabulary import token_ids
from lora_compose.benchmarks.serving.results.document import RequestRow
from lora_compose.benchmarks.serving.results.plan import Cell, Plan, spread_over
from lora_compose.benchmarks.workload import prompt as random_text
from lora_compose.server.client.http import Client

DATA = "data: "
DONE = "[DONE]"
Lines = list[tuple[float, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Sending:
    """One request to send: its body, and the values that its row repeats."""

    body: dict[str, Any]
    composition: int = 0
    prompt: int = 0
    due: float = 0.0
    ids_as_text: bool = False
    """Whether the answer's text is the ids of its tokens."""


async def send_pass(
    client: httpx.AsyncClient, sendings: Sequence[Sending], concurrency: int | None
) -> tuple[list[RequestRow], float]:
    """Send all requests: `concurrency` at a time (closed loop), or each one when it is due (open loop, None).

    Returns the rows in the order of sending, and the seconds from the first request to the end of the last
    answer.
    """
    kept: list[tuple[RequestRow, Lines]] = []
    began = perf_counter()

    async def send(number: int, sending: Sending) -> None:
        row = RequestRow(
            i=number,
            composition=sending.composition,
            prompt=sending.prompt,
            due=sending.due,
            sent=perf_counter() - began,
        )
        lines: Lines = []
        kept.append((row, lines))
        row.failure = await receive(client, sending.body, lines, lambda: perf_counter() - began)
        row.ended = perf_counter() - began

    if concurrency is None:
        await _open_loop(sendings, send, began)
    else:
        await _closed_loop(enumerate(sendings), lambda numbered: send(*numbered), concurrency)
    seconds = perf_counter() - began
    for row, lines in kept:
        body = sendings[row.i].body
        read_answer(row, lines, streamed=bool(body.get("stream")), ids_as_text=sendings[row.i].ids_as_text)
        if row.failure is None and row.tokens != body["max_tokens"]:
            row.failure = "wrong_length"
        if concurrency is not None:
            row.due = row.sent
    return sorted((row for row, _ in kept), key=lambda row: row.i), seconds


async def send_one(client: httpx.AsyncClient, sending: Sending) -> RequestRow:
    """Send one request alone."""
    (row,), _ = await send_pass(client, [sending], 1)
    return row


async def receive(
    client: httpx.AsyncClient, body: dict[str, Any], lines: Lines, now: Callable[[], float]
) -> str | None:
    """Send `body`, and add each line of the answer to `lines` when it arrives.

    Returns the reason for a failure, or None.
    """
    try:
        async with client.stream("POST", PATH, json=body) as response:
            if not response.is_success:
                return f"http_{response.status_code}"
            await _collect(response, lines, now)
    except httpx.HTTPError as error:
        return type(error).__name__
    return None


async def _collect(response: httpx.Response, lines: Lines, now: Callable[[], float]) -> None:
    async for line in response.aiter_lines():
        if line:
            lines.append((now(), line))


def read_answer(row: RequestRow, lines: Lines, *, streamed: bool = True, ids_as_text: bool = False) -> None:
    """Fill in `row` from the lines of its answer: server-sent events if `streamed`, else a JSON document.

    With `ids_as_text` the text is the ids of the tokens, as `benchmarks.llamacpp.vocabulary` says."""
    if row.failure is not None:
        return
    for when, line in lines:
        data = line.removeprefix(DATA)
        if data == DONE:
            row.ended = when
            return
        try:
            row.failure = _read_chunk(row, when, json.loads(data), ids_as_text)
        except (ValueError, KeyError, TypeError, AttributeError):
            row.failure = "unreadable_chunk"
        if row.failure is not None:
            return
    if streamed:
        row.failure = "cut_stream"


def _read_chunk(row: RequestRow, when: float, chunk: dict[str, Any], ids_as_text: bool) -> str | None:
    if "error" in chunk:
        return "error_event"
    for choice in chunk.get("choices", ()):
        if ids_as_text and not choice["text"]:
            continue  # llama.cpp's last chunk of an answer has no token
        row.times.append(when)
        row.ids += token_ids(choice["text"]) if ids_as_text else choice.get("token_ids") or []
    if usage := chunk.get("usage"):
        row.tokens, row.prompt_tokens = usage["completion_tokens"], usage.get("prompt_tokens", 0)
    return None


async def _open_loop(
    sendings: Sequence[Sending], send: Callable[[int, Sending], Coroutine[Any, Any, None]], began: float
) -> None:
    async with asyncio.TaskGroup() as group:
        for number, sending in enumerate(sendings):
            await asyncio.sleep(max(0.0, began + sending.due - perf_counter()))
            group.create_task(send(number, sending))


async def _closed_loop(items: Iterable[T], act: Callable[[T], Awaitable[None]], concurrency: int) -> None:
    """Call `act` on each item, `concurrency` at a time. The next call starts as soon as one ends."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


@dataclass(frozen=True)
class Planned:
    """One request: the indices of its composition and its prompt, and when it is due (0 in a closed loop)."""

    composition: int
    prompt: int
    due: float
    salt: str


def planned(plan: Plan, cell: Cell, repeat: int) -> list[Planned]:
    """The requests of one pass. They are the same for every arm."""
    draw = random.Random(f"{plan.seed}/{cell.load}/{repeat}")
    spread = spread_over(plan.compositions, plan.skew, draw)
    due, requests = 0.0, []
    for number, composition in enumerate(islice(spread, plan.requests)):
        if cell.rate is not None:
            # Gamma gaps with mean 1/rate; shape 1 is Poisson (as `vllm bench serve --burstiness`).
            due += draw.gammavariate(plan.burstiness, 1 / (cell.rate * plan.burstiness))
        salt = hashlib.sha256(f"{plan.seed}/{cell.load}/{repeat}/{number}".encode()).hexdigest()
        requests.append(Planned(composition, draw.randrange(plan.pool), due, salt))
    return requests


def workload_digest(plan: Plan, pool: Sequence[Sequence[int]]) -> str:
    """sha256 of everything that is sent. Two runs with the same digest sent the same requests."""
    passes = [
        [[item.composition, item.prompt, round(item.due, 9)] for item in planned(plan, cell, repeat)]
        for cell in plan.cells()
        for repeat in range(plan.repeats)
    ]
    text = json.dumps([list(map(list, pool)), passes, plan.output_tokens, plan.arms])
    return hashlib.sha256(text.encode()).hexdigest()


def body(model: str, prompt: Sequence[int], output_tokens: int, salt: str) -> dict[str, Any]:
    """The body of a streamed, greedy completion whose answer has exactly `output_tokens` tokens."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_salt": salt,
        "return_token_ids": True,
    }


SAMPLE_CHARS = 2000
LEAST_OWN = 4
"""Least number of random tokens in a prompt. If the chat template leaves fewer, it is not used."""


@dataclass(frozen=True)
class Words:
    """Ordinary tokens of a model, and the tokens that its chat template puts before and after a message."""

    vocabulary: Sequence[int]
    before: Sequence[int] = ()
    after: Sequence[int] = ()


def words_of(client: Client, base: str) -> Words:
    """The tokens that the model's tokenizer makes from random words, and those of its chat template."""
    text = random_text(random.Random(0), SAMPLE_CHARS)
    plain = client.tokenize(base, text)
    try:
        framed = client.tokenize_chat(base, text)
    except LoraComposeError:  # a base without a chat template
        return Words(plain)
    middle = plain[1:-1]  # a tokenizer can join the first and last tokens with the template's
    starts = (at for at in range(len(framed)) if framed[at : at + len(middle)] == middle)
    start = next(starts, None)
    if start is None:
        return Words(plain)
    return Words(plain, framed[: start - 1], framed[start + len(middle) + 1 :])


def prompt_pool(plan: Plan, words: Words) -> list[list[int]]:
    """`plan.pool` prompts of exactly `plan.prompt_tokens` tokens. They depend on the seed only."""
    draw = random.Random(f"{plan.seed}/prompts")
    own = plan.prompt_tokens - len(words.before) - len(words.after)
    before, after = words.before, words.after
    if own < LEAST_OWN:
        own, before, after = plan.prompt_tokens, (), ()
    return [[*before, *draw.choices(words.vocabulary, k=own), *after] for _ in range(plan.pool)]
