"""HTTP as an attacker sends it: bytes made beforehand, and no more read than wanted.

A client library would refuse to send most of it, and cost more time than the server's refusal.
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
    """What the attacker notes of an answer."""

    status: int
    """0: the connection ended without one."""
    retry_after: bool = False

    @property
    def label(self) -> str:
        """`200`, `429 retry-after`, `dropped`."""
        if not self.status:
            return "dropped"
        return f"{self.status} retry-after" if self.retry_after else str(self.status)


@dataclass(frozen=True)
class Wire:
    """Where to, and with which key."""

    port: int
    key: str

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A whole request, after which the server closes."""
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
        """JSON."""
        return self.request("POST", path, json.dumps(body).encode())

    @asynccontextmanager
    async def connection(self, window: int | None = None) -> AsyncIterator[Stream]:
        """A connection; `window` bytes are all that the kernel takes for it before it is read."""
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
        """Send and read all of the answer."""
        with suppress(OSError):
            async with self.connection() as (reader, writer):
                with suppress(OSError):  # it may answer and close before it has read everything
                    writer.write(request)
                    await writer.drain()
                head = await reader.read(MOST_READ)
                while await reader.read(MOST_READ):
                    pass
                return read_head(head)
        return Reply(0)


def read_head(head: bytes) -> Reply:
    """Of the first bytes of an answer."""
    status = head[9:12]
    if not head.startswith(b"HTTP/1.1 ") or not status.isdigit():
        return Reply(0)
    return Reply(int(status), RETRY_AFTER.search(head) is not None)
