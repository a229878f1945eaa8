"""HTTP as an attacker sends it: prepared bytes, and only as much of the reply is read as needed.

A client library would refuse to send most of these requests, and would need more CPU time than the server.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

RETRY_AFTER = re.compile(rb"\r\nretry-after: ?(\d+)", re.IGNORECASE)
MOST_READ = 1 << 16
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Reply:
    """The part of a reply that is counted."""

    status: int
    """0 if the connection ended without a reply."""
    retry_after: bool = False

    @property
    def label(self) -> str:
        """The reply as text: `200`, `429 retry-after` or `dropped`."""
        if not self.status:
            return "dropped"
        return f"{self.status} retry-after" if self.retry_after else str(self.status)


@dataclass(frozen=True)
class Wire:
    """The server's port, and the key to send."""

    port: int
    key: str

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The bytes of a request. The server closes the connection after it."""
        lines = {
            "host": "victim",
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The bytes of a POST with a JSON body."""
        return self.request("POST", path, json.dumps(body).encode())

    @asynccontextmanager
    async def connection(self, window: int | None = None) -> AsyncIterator[Stream]:
        """A connection. `window` limits the bytes that the kernel receives before they are read."""
        sock = socket.socket()
        sock.setblocking(False)
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        stream = await asyncio.open_connection(sock=sock, limit=window or MOST_READ)
        try:
            yield stream
        finally:
            stream[1].transport.abort()

    async def send(self, request: bytes) -> Reply:
        """Send a request and read the whole reply."""
        with suppress(OSError):
            async with self.connection() as (reader, writer):
                with suppress(OSError):  # the server may reply and close before it has read everything
                    writer.write(request)
                    await writer.drain()
                head = await reader.read(MOST_READ)
                while await reader.read(MOST_READ):
                    pass
                return read_head(head)
        return Reply(0)


def read_head(head: bytes) -> Reply:
    """The reply whose first bytes are `head`."""
    status = head[9:12]
    if not head.startswith(b"HTTP/1.1 ") or not status.isdigit():
        return Reply(0)
    return Reply(int(status), RETRY_AFTER.search(head) is not None)
