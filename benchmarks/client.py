"""One request, timed; many, in a closed loop. One process, timestamps from `perf_counter`.

Whatever goes wrong with a request is written into its row: a failure is a record, not a crash and not a gap.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import httpx

PATH = "/v1/completions"
DONE = "data: [DONE]"
TIMEOUT = httpx.Timeout(120)
# Servers close idle connections after 5 s (uvicorn's default), and httpx would reuse them for as long.
KEEP_ALIVE_SECONDS = 2.0
T = TypeVar("T")


@dataclass
class Row:
    """What became of one request. Times are seconds of `perf_counter`."""

    model: str
    sent: float
    ended: float = 0.0
    first: float | None = None
    """When the first token came; None where the answer was not streamed."""
    answered_by: str | None = None
    """`x-lora-composition`, where the server says it."""
    usage: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why it does not count: `http_<status>`, a transport error's class, `wrong_length`, `cut_stream`, …"""

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return 0 if self.failure else int(self.usage.get("completion_tokens", 0))


def open_client(url: str, concurrency: int, api_key: str | None = None) -> httpx.AsyncClient:
    """Connections for `concurrency` requests at once, kept open between them."""
    limits = httpx.Limits(max_connections=concurrency, keepalive_expiry=KEEP_ALIVE_SECONDS)
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(base_url=url, limits=limits, headers=headers, timeout=TIMEOUT)


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Row:
    """Send one completion and time it."""
    row = Row(body["model"], perf_counter())
    try:
        async with client.stream("POST", PATH, json=body) as response:
            row.answered_by = response.headers.get("x-lora-composition")
            if not response.is_success:
                row.failure = f"http_{response.status_code}"
            elif body.get("stream"):
                await _read_stream(response, row)
            else:
                row.usage = json.loads(await response.aread())["usage"]
    except httpx.HTTPError as error:
        row.failure = type(error).__name__
    except (ValueError, KeyError, TypeError):
        row.failure = "unreadable_answer"
    row.ended = perf_counter()
    if row.failure is None and row.usage.get("completion_tokens") != body["max_tokens"]:
        row.failure = "wrong_length"
    return row


async def _read_stream(response: httpx.Response, row: Row) -> None:
    """Note the first token's time and the usage. The chunks between are read and not parsed."""
    last = ""
    async for line in _data_lines(response):
        if row.first is None:
            row.first = perf_counter()
        if line == DONE:
            row.usage = json.loads(last.removeprefix("data: "))["usage"]
            return
        last = line
    row.failure = "cut_stream"


async def _data_lines(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line


async def closed_loop(
    client: httpx.AsyncClient, bodies: Sequence[dict[str, Any]], concurrency: int
) -> tuple[list[Row], float]:
    """Send all `bodies`, `concurrency` at a time, the next as soon as one ends: the rows and the seconds."""
    rows: list[Row] = []

    async def one(body: dict[str, Any]) -> None:
        rows.append(await ask(client, body))

    began = perf_counter()
    await in_closed_loop(bodies, one, concurrency)
    return rows, perf_counter() - began


async def in_closed_loop(each: Iterable[T], act: Callable[[T], Awaitable[None]], concurrency: int) -> None:
    """`act` on every one, `concurrency` at a time, the next as soon as one ends."""
    waiting = iter(each)

    async def worker() -> None:
        for one in waiting:
            await act(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
