"""The timing client against answers that a real server gives only when it is broken."""

import json
from collections.abc import Callable

import httpx
import pytest

from benchmarks.client import Row, ask, closed_loop
from benchmarks.workload import completion_body

Handler = Callable[[httpx.Request], httpx.Response]
CHUNK = 'data: {"choices": [{"text": "a"}]}\n\n'
USAGE = 'data: {"choices": [], "usage": {"completion_tokens": 4}}\n\n'


async def asked(handler: Handler, *, stream: bool = False) -> Row:
    transport = httpx.MockTransport(handler)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await ask(client, completion_body("m", "hello", 4, stream=stream))


def replying(status: int, text: str) -> Handler:
    return lambda _: httpx.Response(status, text=text)


def breaking(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("gone")


@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (replying(503, "{}"), "http_503"),
        (breaking, "ReadError"),
        (replying(200, json.dumps({"usage": {"completion_tokens": 3}})), "wrong_length"),
        (replying(200, "{}"), "unreadable_answer"),
        (replying(200, "[]"), "unreadable_answer"),
    ],
)
async def test_whatever_goes_wrong_is_a_row_that_does_not_count(handler: Handler, failure: str) -> None:
    row = await asked(handler)
    assert (row.failure, row.tokens) == (failure, 0)
    assert row.ended >= row.sent


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (CHUNK * 4 + USAGE + "data: [DONE]\n\n", None),
        (CHUNK * 4 + USAGE, "cut_stream"),
        (CHUNK + 'data: {"error": {}}\n\ndata: [DONE]\n\n', "unreadable_answer"),
        ("data: [DONE]\n\n", "unreadable_answer"),
    ],
)
async def test_a_stream_counts_only_when_it_ends_with_its_usage(text: str, failure: str | None) -> None:
    row = await asked(replying(200, text), stream=True)
    assert row.failure == failure
    assert row.tokens == (0 if failure else 4)


async def test_the_loop_sends_every_request_once_and_never_more_than_asked_at_a_time() -> None:
    seen: list[str] = []
    in_flight = most = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        seen.append(json.loads(await request.aread())["prompt"])
        in_flight -= 1
        return httpx.Response(200, json={"usage": {"completion_tokens": 1}})

    bodies = [completion_body("m", str(number), 1, stream=False) for number in range(20)]
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://server") as client:
        rows, _ = await closed_loop(client, bodies, concurrency=3)
    assert sorted(seen, key=int) == [str(number) for number in range(20)]
    assert len(rows) == 20
    assert most <= 3
