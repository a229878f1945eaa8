"""The load generator against answers that a real server gives only when it is broken."""

import json
from collections.abc import Callable

import httpx
import pytest

from lora_compose.benchmarks.serving.load import Sending, send_one, send_pass
from lora_compose.benchmarks.serving.results.document import RequestRow
from lora_compose.benchmarks.studies.hot_load import gaps_since
from lora_compose.benchmarks.workload import completion_body

Handler = Callable[[httpx.Request], httpx.Response]
CHUNK = 'data: {"choices": [{"text": "a"}]}\n\n'
USAGE = 'data: {"choices": [], "usage": {"completion_tokens": 4}}\n\n'


async def asked(handler: Handler, *, stream: bool = False) -> RequestRow:
    transport = httpx.MockTransport(handler)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await send_one(client, Sending(completion_body("m", "hello", 4, stream=stream)))


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
        (replying(200, "{}"), "wrong_length"),
        (replying(200, "[]"), "unreadable_chunk"),
        (replying(200, "a"), "unreadable_chunk"),
        (replying(200, '{"usage": {}}'), "wrong_length"),
        (replying(200, '{"usage": []}'), "wrong_length"),
        (replying(200, '{"usage": 1}'), "unreadable_chunk"),
    ],
)
async def test_a_failed_request_is_a_row_that_does_not_count(handler: Handler, failure: str) -> None:
    row = await asked(handler)
    assert row.failure == failure
    assert row.ended >= row.sent


async def test_an_answer_that_is_not_streamed_counts_with_its_usage() -> None:
    content = {"choices": [{"text": "a"}], "usage": {"completion_tokens": 4, "prompt_tokens": 2}}
    row = await asked(replying(200, json.dumps(content)))
    assert (row.failure, row.tokens, row.prompt_tokens, len(row.times)) == (None, 4, 2, 1)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (CHUNK * 4 + USAGE + "data: [DONE]\n\n", None),
        (CHUNK * 4 + USAGE, "cut_stream"),
        (CHUNK + 'data: {"error": {}}\n\ndata: [DONE]\n\n', "error_event"),
        ("data: [DONE]\n\n", "wrong_length"),
    ],
)
async def test_a_stream_counts_only_when_it_ends_with_its_usage(text: str, failure: str | None) -> None:
    row = await asked(replying(200, text), stream=True)
    assert row.failure == failure
    if failure is None:
        assert (row.tokens, len(row.times)) == (4, 4)


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

    sendings = [Sending(completion_body("m", str(number), 1, stream=False)) for number in range(20)]
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://server") as client:
        rows, _ = await send_pass(client, sendings, 3)
    assert sorted(seen, key=int) == [str(number) for number in range(20)]
    assert len(rows) == 20
    assert most <= 3


def test_a_gap_is_between_two_chunks_of_one_answer_and_counts_when_it_ends_in_the_window() -> None:
    chunk = 'data: {"choices": []}'
    first = [(0.0, chunk), (1.0, chunk), (4.0, chunk), (9.0, "data: [DONE]")]
    assert gaps_since(2.0, [first, [(3.0, chunk)]]) == [3.0]
