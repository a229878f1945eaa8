"""A request with `Upgrade` is answered like the same request without it, exactly once.

Each request goes through a real socket. The app answers with what it received, and records it.
"""

import asyncio
import itertools
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lora_compose.server.client.process import free_port
from lora_compose.server.http.connection import MAX_HEAD_BYTES, HttpProtocol
from tests.campaigns.hostile.attacks import Attack, ask_with_upgrade
from tests.campaigns.hostile.wire import Wire
from tests.server.app_without_engine import AppWithoutEngine

seen: list[tuple[str, str, str]] = []
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
"""A body that is a request itself. The app must never see a request for this path."""
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
UPGRADES = [
    H2C,
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
    b"upgrade: TLS/1.0, HTTP/2.0, IRC/6.9\r\nconnection: upgrade\r\n",
    b"UPGRADE:\r\nCONNECTION: UPGRADE\r\n",
    b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
    b"Upgrade: h2c\r\nProxy-Connection: upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\n",
]
LARGE = SMUGGLED.decode() * 1000
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(request: Request) -> JSONResponse:
    body = (await request.body()).decode()
    seen.append((request.method, request.url.path, body))
    return JSONResponse([request.method, request.url.path, body])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = Starlette(routes=[Route("/{name:path}", echo, methods=["GET", "POST"])])
    config = uvicorn.Config(app, port=free_port(), http=HttpProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield config.port
    server.should_exit = True
    thread.join()


def with_length(path: str, body: bytes, fields: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + fields + b"\r\n" + body


def chunked(path: str, body: bytes, fields: bytes = b"", trailers: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n".encode()
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
    return head + fields + b"\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


def without_body(path: str, fields: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: a\r\n".encode() + fields + b"\r\n"


LAST = without_body("/last", b"connection: close\r\n")
"""The last request on a connection. Its answer shows that nothing is left over from the earlier ones."""


def replies(port: int, segments: Iterable[bytes], pause: float = 0.0) -> list[tuple[int, Any]]:
    """The status and JSON of every reply until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            connection.sendall(segment)
            time.sleep(pause)
        received = b""
        while chunk := connection.recv(1 << 16):
            received += chunk
    return parsed(received)


def parsed(received: bytes) -> list[tuple[int, Any]]:
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        if status == 100:
            received = rest
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        found.append((status, json.loads(rest[:length])))
        received = rest[length:]
    return found


def answers(*asked: tuple[str, str, bytes]) -> list[tuple[int, Any]]:
    """The replies that these requests (method, path, body) must get."""
    return [(200, [method, path, body.decode()]) for method, path, body in asked]


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


@pytest.mark.parametrize("fields", UPGRADES)
@pytest.mark.parametrize("form", [with_length, chunked])
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_the_body_is_read_in_the_same_and_in_a_later_segment(
    port: int, fields: bytes, form: Any, pause: float
) -> None:
    seen.clear()
    request = form("/asked", SMUGGLED, fields)
    segments = [*split(request, [request.index(b"\r\n\r\n") + 4]), LAST] if pause else [request + LAST]
    assert replies(port, segments, pause) == answers(("POST", "/asked", SMUGGLED), ("GET", "/last", b""))
    assert len(seen) == 2


@pytest.mark.parametrize("form", [with_length, chunked])
def test_a_request_split_at_any_byte_is_one_request(port: int, form: Any) -> None:
    request = form("/asked", SMUGGLED, H2C)
    expected = answers(("POST", "/asked", SMUGGLED), ("GET", "/last", b""))
    for cut in range(1, len(request)):
        assert replies(port, [request[:cut], request[cut:] + LAST], 0.001) == expected, cut
    assert replies(port, [*split(request, range(1, len(request))), LAST]) == expected


def test_pipelined_requests_at_1000_random_splits_are_answered_in_order(port: int) -> None:
    draw = random.Random(17)
    for number in range(1000):
        seen.clear()
        asked, data = [], b""
        for at in range(draw.randint(1, 5)):
            path, fields = f"/{number}/{at}", draw.choice([b"", *UPGRADES])
            body = SMUGGLED * draw.randint(0, 3)
            form: Any = draw.choice([with_length, chunked, without_body])
            is_get = form is without_body
            data += form(path, fields) if is_get else form(path, body, fields)
            asked.append(("GET" if is_get else "POST", path, b"" if is_get else body))
        data += LAST
        cuts = draw.sample(range(1, len(data)), draw.randint(0, 6))
        expected = answers(*asked, ("GET", "/last", b""))
        assert replies(port, split(data, cuts), 0.001) == expected, number
        assert len(seen) == len(expected)


def test_a_body_larger_than_the_buffers_arrives_whole(port: int) -> None:
    body = SMUGGLED * 100_000
    segments = [with_length("/asked", body, H2C), LAST]
    assert replies(port, segments) == answers(("POST", "/asked", body), ("GET", "/last", b""))


def test_a_client_that_waits_for_100_continue_gets_it_once(port: int) -> None:
    request = with_length("/asked", b"hello", H2C + b"Expect: 100-continue\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request[:-5])
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello" + LAST)
        received = b""
        while chunk := connection.recv(1 << 16):
            received += chunk
    assert b"100 Continue" not in received
    assert parsed(received) == answers(("POST", "/asked", b"hello"), ("GET", "/last", b""))


def test_upgrade_in_trailers_changes_nothing(port: int) -> None:
    request = chunked("/asked", b"hello", trailers=b"Connection: upgrade\r\nUpgrade: h2c\r\n")
    expected = answers(("POST", "/asked", b"hello"), ("GET", "/last", b""))
    assert replies(port, [request + LAST]) == expected


def test_the_other_headers_and_the_version_reach_the_app_unchanged(port: int) -> None:
    """HTTP/1.0 closes the connection after the response."""
    request = b"GET http://a/asked?x=1 HTTP/1.0\r\nempty:\r\nspaced:  b\xe9  \r\n" + UPGRADES[1] + b"\r\n"
    assert replies(port, [request]) == answers(("GET", "/asked", b""))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n" + H2C + b"\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n" + H2C + b"\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n" + H2C + b"\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n" + H2C + b"\r\n",
        b"GET /a HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n" + H2C + b"\r\n",
        b"GET /a HTTP/1.1\r\nhost: a\r\nUpgrade : h2c\r\nConnection: upgrade\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT /a HTTP/1.1\r\nhost: a\r\n" + H2C + b"\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
    ],
)
def test_a_request_without_a_clear_end_is_refused_and_closes_the_connection(
    port: int, request_bytes: bytes
) -> None:
    seen.clear()
    [(status, refusal)] = replies(port, [request_bytes, SMUGGLED])
    assert (status, refusal["error"]["code"]) == (400, "invalid_request")
    assert ("GET", "/smuggled", "") not in seen


def test_the_limit_on_the_head_holds_with_upgrade(port: int) -> None:
    head = b"POST /a HTTP/1.1\r\nhost: a\r\n" + H2C + b"x: " + b"x" * 2 * MAX_HEAD_BYTES
    [(status, refusal)] = replies(port, [head])
    assert (status, refusal["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("handshake", [HANDSHAKE, HANDSHAKE.replace(b"Upgrade: websocket\r\n", b"")])
def test_a_websocket_handshake_is_refused_in_our_shape(
    port: int, handshake: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    seen.clear()
    found = replies(port, [handshake + LAST])
    assert [status for status, _ in found] == [400, 200]
    assert found[0][1]["error"]["code"] == "invalid_request"
    assert "WebSocket" in found[0][1]["error"]["message"]
    assert seen == [("GET", "/last", "")]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("fields", UPGRADES)
def test_our_app_answers_as_without_the_header(plain: AppWithoutEngine, fields: bytes) -> None:
    """The route reads the body and refuses it, because the model does not exist."""
    port = urlsplit(plain.url).port
    assert port is not None
    body = json.dumps({"model": "absent", "prompt": "a", "max_tokens": 1}).encode()
    alone, _ = replies(port, [with_length("/v1/completions", body) + LAST])
    request = with_length("/v1/completions", body, fields)
    assert replies(port, [*split(request, [len(request) - len(body)]), LAST], 0.02)[0] == alone
    assert alone[0] == 404


def test_the_attack_of_the_campaign_gets_one_reply_for_each_request(plain: AppWithoutEngine) -> None:
    port = urlsplit(plain.url).port
    assert port is not None
    attack = Attack(Wire(port, "lc-unknown"), "", "", random.Random(17))

    async def run() -> None:
        for _ in range(30):
            await ask_with_upgrade(attack)

    asyncio.run(run())
    assert attack.replies == {"2 replies": 30}


def test_curl_with_http2_gets_its_answer(port: int) -> None:
    version = shutil.which("curl") and subprocess.run(["curl", "--version"], capture_output=True).stdout
    if not version or b"HTTP2" not in version:
        pytest.skip("this test needs curl with HTTP/2")
    url = f"http://127.0.0.1:{port}/asked"
    check_client(["curl", "-s", "--http2", url, "--data-binary", LARGE])


JAVA = """
import java.net.URI;
import java.net.http.*;

class Ask {
    public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(args[0]));
        request.POST(HttpRequest.BodyPublishers.ofString(args[1]));
        var reply = HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
        System.out.print(reply.body());
    }
}
"""
"""Java's client offers h2c with its first request, and sends the body in a second segment."""


def test_javas_http_client_gets_its_answer(port: int, tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("this test needs a JDK")
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    check_client(["java", str(source), f"http://127.0.0.1:{port}/asked", LARGE])


def check_client(command: list[str]) -> None:
    """Check that this command sends `LARGE` once to `/asked`, and prints the answer."""
    seen.clear()
    ran = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(ran.stdout) == ["POST", "/asked", LARGE]
    assert seen == [("POST", "/asked", LARGE)]
