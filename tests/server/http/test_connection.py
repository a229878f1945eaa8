"""Bytes that are not an HTTP request get an error in our shape. A client that stalls loses its own
connection, and other clients keep theirs."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from lora_compose.server.client.process import free_port
from lora_compose.server.http.connection import MAX_HEAD_BYTES, HttpProtocol
from lora_compose.server.http.cors import Cors, cors_of, no_cors
from lora_compose.server.http.pace import REFUSALS_PER_SECOND, Pace
from lora_compose.server.options.http_options import HttpOptions
from tests.server.app_without_engine import AppWithoutEngine


def said(plain: AppWithoutEngine, data: bytes) -> tuple[bytes, bytes]:
    """Head and body of the reply to these bytes. It is read to the end, so the server must close."""
    address = urlsplit(plain.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(data)
        reply = b""
        while chunk := connection.recv(65536):
            reply += chunk
    head, _, body = reply.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"garbage\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "invalid_request"),
        (b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, "invalid_request"),
        (b"GET /" + b"x" * 2 * MAX_HEAD_BYTES, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 8 * MAX_HEAD_BYTES, 431, "headers_too_large"),
    ],
)
def test_what_is_no_request_is_refused_in_our_shape(
    plain: AppWithoutEngine, data: bytes, status: int, code: str
) -> None:
    head, body = said(plain, data)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["error"]["code"] == code
    for header in (b"x-request-id: ", b"x-should-retry: false", b"connection: close"):
        assert header in head


def test_a_large_body_right_behind_its_head_is_no_large_head(plain: AppWithoutEngine) -> None:
    body = b" " * 4 * MAX_HEAD_BYTES
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    assert said(plain, head.encode() + b"\r\n" + body)[0].startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/adapters", "/tokenize"])
@pytest.mark.parametrize("rest", [b"", b"no chunk\r\n"])
def test_a_body_that_ends_too_early_is_no_error_of_the_server(
    plain: AppWithoutEngine, caplog: pytest.LogCaptureFixture, path: str, rest: bytes
) -> None:
    """It is an error of the client: no traceback, no status 500."""
    address = urlsplit(plain.url)
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
    caplog.set_level("INFO")
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n2\r\n{")
        time.sleep(0.05)
        connection.sendall(rest)
    until(lambda: any(record.name.endswith("access_log") for record in caplog.records))
    [logged] = [record for record in caplog.records if record.name.endswith("access_log")]
    assert vars(logged)["fields"]["status"] == 400
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


LARGE = 24 << 20


class Hasty(HttpProtocol):
    head_seconds = 0.3
    stalled_seconds = 0.5


def short(_: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


def large(_: Request) -> StreamingResponse:
    return StreamingResponse(iter([b"x" * (1 << 16)] * (LARGE >> 16)))


async def slow(_: Request) -> PlainTextResponse:
    await asyncio.sleep(0.2)
    return PlainTextResponse("slow")


async def whole(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


@contextmanager
def running(cors: Cors = no_cors) -> Iterator[uvicorn.Server]:
    """The protocol with short time limits."""
    app = Starlette(
        routes=[
            Route("/", short, methods=["GET", "POST"]),
            Route("/large", large, methods=["GET", "POST"]),
            Route("/slow", slow),
            Route("/whole", whole, methods=["POST"]),
        ]
    )
    protocol = type("WithCors", (Hasty,), {"cors": staticmethod(cors), "pace": Pace()})
    server = uvicorn.Server(
        uvicorn.Config(app, port=free_port(), http=protocol, log_level="critical", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join()


@contextmanager
def served(cors: Cors) -> Iterator[int]:
    with running(cors) as server:
        yield server.config.port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.fixture(scope="module")
def hasty() -> Iterator[uvicorn.Server]:
    with running() as server:
        yield server


def read_all(connection: socket.socket) -> bytes:
    found = bytearray()
    try:
        while got := connection.recv(1 << 16):
            found += got
    except ConnectionResetError:
        pass
    return bytes(found)


@pytest.fixture
def port(hasty: uvicorn.Server) -> int:
    return hasty.config.port


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n"])
def test_headers_that_do_not_come_end_the_connection(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_the_next_request_has_no_longer_than_the_first(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT")
        first, _, second = read_all(connection).partition(b"here")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("reads", [True, False])
def test_a_stream_nobody_reads_is_ended_and_one_that_is_read_is_not(
    hasty: uvicorn.Server, reads: bool
) -> None:
    connections = hasty.server_state.connections
    with socket.create_connection(("127.0.0.1", hasty.config.port), timeout=10) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        if not reads:
            until(lambda: bool(connections))
            until(lambda: not connections)
        found = len(read_all(connection))
    assert (found > LARGE) == reads


SLOW = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b" HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
NO_CHUNK = b"no chunk\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("segments", "statuses"),
    [
        ([SLOW + b"garbage\r\n\r\n"], [200, 400]),
        ([SLOW, SLOW, b"CONNECT a:443 HTTP/1.1\r\n\r\n" + SLOW], [200, 200, 400]),
        ([SLOW, b"GET / HTTP/1.1\r\nx: ", b"x" * 2 * MAX_HEAD_BYTES], [200, 431]),
        ([b"GET http://a:x/ HTTP/1.1\r\nhost: a\r\n\r\n"], [400]),
        ([b"GET /\xff HTTP/1.1\r\nhost: a\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n"], [400]),
        ([SLOW + b"GET http://a:x/ HTTP/1.1\r\nhost: a\r\n\r\n" + SLOW], [200, 400]),
        ([SLOW * 3 + b"GET / HT"], [200, 200, 200, 408]),
        ([b"POST /whole" + CHUNKED + NO_CHUNK], [400]),
        ([b"POST /whole" + CHUNKED, NO_CHUNK], [400]),
        ([SLOW + b"POST /whole" + CHUNKED, NO_CHUNK], [200, 400]),
        ([SLOW + SLOW + b"POST /whole" + CHUNKED + NO_CHUNK], [200, 200, 400]),
        ([b"POST /" + CHUNKED, NO_CHUNK], [200]),
    ],
)
def test_a_refusal_comes_after_the_earlier_responses_and_is_the_last(
    port: int, segments: list[bytes], statuses: list[int]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for segment in segments:
            connection.sendall(segment)
            time.sleep(0.05)
        received = read_all(connection)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)] == statuses


@pytest.mark.parametrize("start", [b"0\r\nx: ", b"0\r\n", b"1;x="])
def test_trailers_and_chunk_extensions_have_the_limit_of_the_head(port: int, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /whole" + CHUNKED + start)
        time.sleep(0.05)
        connection.sendall((b"x" if b"x" in start else b"a: b\r\n") * 2 * MAX_HEAD_BYTES)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_large_head_and_trailers_within_the_limit_are_read(port: int) -> None:
    large = b"x: " + b"x" * (MAX_HEAD_BYTES - 300)
    request = b"POST /whole" + CHUNKED.replace(b"host: a", b"connection: close\r\n" + large)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for segment in (request, b"2;a=b\r\nhi\r\n0\r\n", large + b"\r\n\r\n"):
            connection.sendall(segment)
            time.sleep(0.05)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"hi")


def test_a_body_that_becomes_invalid_ends_a_response_that_has_started(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /large" + CHUNKED)
        received = connection.recv(1 << 16)
        connection.sendall(NO_CHUNK)
        received += read_all(connection)
    assert received.count(b"HTTP/1.1 ") == 1
    assert not received.endswith(b"0\r\n\r\n")


ORIGIN = b"origin: http://page\r\naccept: */*\r\n"
"""The parser reports a header when the next one begins."""
UNNAMED = b"GET / HTTP/1.1\r\nhost: a\r\n"
REFUSED = {
    "431": UNNAMED + ORIGIN + b"x: " + b"x" * 2 * MAX_HEAD_BYTES,
    "400": UNNAMED + ORIGIN + b"bad header\r\n\r\n",
    "408": UNNAMED + ORIGIN + b"acc",
    "400 in a body": b"POST /whole HTTP/1.1\r\nhost: a\r\n" + ORIGIN + CHUNKED[19:] + NO_CHUNK,
    "400 WebSocket": UNNAMED + ORIGIN + b"sec-websocket-key: eA==\r\nconnection: close\r\n\r\n",
}


@pytest.mark.parametrize(("origins", "shown"), [(("*",), b"*"), (("http://page",), b"http://page")])
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_page_may_read_what_is_refused_outside_the_app(
    origins: tuple[str, ...], shown: bytes, data: bytes
) -> None:
    with served(cors_of(HttpOptions(allowed_origins=origins))) as port, connected(port) as connection:
        connection.sendall(data)
        head = read_all(connection).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"access-control-allow-origin: " + shown in head
    assert any(line.startswith(b"access-control-expose-headers: retry-after, ") for line in head)


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_page_of_another_origin_may_not(data: bytes) -> None:
    with (
        served(cors_of(HttpOptions(allowed_origins=("http://other",)))) as port,
        connected(port) as connection,
    ):
        connection.sendall(data)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 4")
    assert b"access-control-allow-origin" not in received


def test_refusals_of_many_connections_are_spaced(port: int) -> None:
    """They would be one long turn of the event loop, and their clients would come back at one time."""
    with ExitStack() as stack:
        opened = [stack.enter_context(connected(port)) for _ in range(20)]
        began = time.monotonic()
        for connection in opened:
            connection.sendall(b"garbage\r\n\r\n")
        assert all(connection.recv(9) == b"HTTP/1.1 " for connection in opened)
        assert time.monotonic() - began >= 19 / REFUSALS_PER_SECOND - 0.05
