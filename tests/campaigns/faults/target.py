"""The real server that faults are tried on."""

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import httpx

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

BASE = "testbed-base"
GOOD = ADAPTERS_DIR / "roll"
FRESH = httpx.Limits(max_keepalive_connections=0)
NAMES = ("dbl", "polite", "roll", "upper")
"""Registered on every target."""


@dataclass
class Target:
    """A running server, its files, and the secrets of its keys by name.

    Without keys it accepts every request.
    """

    server: RunningServer
    data_dir: Path
    root: Path
    """A directory for new files. It is an --adapter-root of the server."""
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = self.client("operator" if self.secrets else None)

    def client(self, key: str | None) -> httpx.Client:
        """A client with this key. It opens a connection for each request, because a fault can break one."""
        headers = {} if key is None else {"authorization": f"Bearer {self.secrets[key]}"}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=60, limits=FRESH)

    def generate(self, body: dict[str, Any], path: str = "/v1/completions") -> httpx.Response:
        """Request a short, greedy answer. `body` overrides the fields of the request."""
        return self.http.post(path, json={"prompt": "roll table", "max_tokens": 4, "temperature": 0} | body)

    def register(self, directory: Path | str, name: str = "case") -> httpx.Response:
        return self.http.post("/v1/adapters", json={"name": name, "path": str(directory)})

    @contextmanager
    def registered(self, directory: Path, name: str = "case") -> Iterator[dict[str, Any]]:
        """Register an adapter, and remove it when the context closes."""
        reply = self.register(directory, name)
        assert reply.status_code in (200, 201), reply.text
        try:
            yield reply.json()
        finally:
            assert self.http.delete(f"/v1/adapters/{name}?cascade=true").status_code in (204, 404)

    @property
    def authorization(self) -> bytes:
        """The operator's header line for a hand-written request, if one is needed."""
        given = self.http.headers.get("authorization")
        return b"" if given is None else f"authorization: {given}\r\n".encode()

    def raw(self, data: bytes, *, cut: bool = False, seconds: float = 10.0) -> httpx.Response | None:
        """The reply to exactly these bytes. None if the server hangs up without a reply.

        With `cut`, the client hangs up immediately.
        """
        address = httpx.URL(self.server.url)
        with socket.create_connection((address.host, address.port or 80), timeout=seconds) as connection:
            # The server may reply and hang up while the client is still sending.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            return None if cut else _reply(connection)


def _reply(connection: socket.socket) -> httpx.Response | None:
    reply = HTTPResponse(connection)
    try:
        reply.begin()
        return httpx.Response(reply.status, headers=reply.getheaders(), content=reply.read())
    except (HTTPException, ConnectionResetError):
        return None
    finally:
        reply.close()


def warm_up(target: Target) -> None:
    """Make the server open its threads and database connections, which it keeps, so they do not count as
    leaks.
    """
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(lambda _: target.http.get("/v1/adapters"), range(400)))
        list(pool.map(lambda _: target.generate({"model": "svd(roll+upper,rank=4)"}), range(100)))


def body_of(reply: httpx.Response) -> dict[str, Any]:
    """The JSON object of a reply, or {}."""
    try:
        found = json.loads(reply.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def serve(home: Path, root: Path, options: Sequence[str] = ()) -> RunningServer:
    """Start a server. It is not ready yet."""
    roots = ["--adapter-root", str(root), "--adapter-root", str(ADAPTERS_DIR)]
    return RunningServer.start(home / "data", home / "log", [*roots, *options])
