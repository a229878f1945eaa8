"""Sends a pass and times every chunk. Times are seconds since the pass began, by `perf_counter`.

Chunks are kept as they come and read after the pass: parsing them meanwhile would be measured too. Whatever
goes wrong with a request is written into its row.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx

from benchmarks.client import PATH, in_closed_loop
from benchmarks.latency.document import RequestRow

DATA = "data: "
DONE = "[DONE]"


@dataclass(frozen=True)
class Sending:
    """One request to send: its row's first fields and its body."""

    composition: int
    prompt: int
    due: float
    body: dict[str, Any]


async def send_pass(
    client: httpx.AsyncClient, sendings: Sequence[Sending], concurrency: int | None
) -> tuple[list[RequestRow], float]:
    """Closed loop with `concurrency`; without, each at its due second whatever the server does (open loop).

    Rows in order of sending, and the seconds from the first send to the last answer."""
    kept: list[tuple[RequestRow, list[tuple[float, str]]]] = []
    began = perf_counter()

    async def one(number: int, sending: Sending) -> None:
        row = RequestRow(
            i=number,
            composition=sending.composition,
            prompt=sending.prompt,
            due=sending.due,
            sent=perf_counter() - began,
        )
        lines: list[tuple[float, str]] = []
        kept.append((row, lines))
        await _stream(client, sending.body, row, lines, lambda: perf_counter() - began)

    if concurrency is None:
        await _open_loop(sendings, one, began)
    else:
        await in_closed_loop(enumerate(sendings), lambda each: one(*each), concurrency)
    seconds = perf_counter() - began
    for row, lines in kept:
        read_chunks(row, lines)
    for (row, _), sending in zip(sorted(kept, key=lambda each: each[0].i), sendings, strict=True):
        if row.failure is None and row.tokens != sending.body["max_tokens"]:
            row.failure = "wrong_length"
        if concurrency is not None:
            row.due = row.sent
    return sorted((row for row, _ in kept), key=lambda row: row.i), seconds


async def _open_loop(sendings: Sequence[Sending], one: Callable[..., Any], began: float) -> None:
    async with asyncio.TaskGroup() as group:
        for number, sending in enumerate(sendings):
            await asyncio.sleep(max(0.0, began + sending.due - perf_counter()))
            group.create_task(one(number, sending))


async def _stream(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    row: RequestRow,
    lines: list[tuple[float, str]],
    now: Callable[[], float],
) -> None:
    try:
        async with client.stream("POST", PATH, json=body) as response:
            if not response.is_success:
                row.failure = f"http_{response.status_code}"
                return
            lines += [(now(), line) async for line in response.aiter_lines() if line]
    except httpx.HTTPError as error:
        row.failure = type(error).__name__
    finally:
        row.ended = now()


def read_chunks(row: RequestRow, lines: Sequence[tuple[float, str]]) -> None:
    """Fill in what the chunks say."""
    if row.failure is not None:
        return
    for when, line in lines:
        data = line.removeprefix(DATA)
        if data == DONE:
            row.ended = when
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            row.failure = "unreadable_chunk"
            return
        if "error" in chunk:
            row.failure = "error_event"
            return
        for choice in chunk.get("choices", ()):
            row.times.append(when)
            row.ids += choice.get("token_ids") or []
        if usage := chunk.get("usage"):
            row.tokens, row.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    row.failure = "cut_stream"
