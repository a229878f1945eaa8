"""HTTP/1.1 as uvicorn speaks it, with our error contract, a bound on a request's head, and two clocks.

uvicorn waits for ever for a request's headers, and for a client to read what it was sent: whoever opens
connections by the hundred would hold them all.
"""

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_compose.server.errors import error_body, error_headers

MAX_HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 1.0


class HttpProtocol(HttpToolsProtocol):
    """One connection. It closes after a refusal here: where the next request would begin is not known."""

    head_seconds = 10.0
    """From the connection, or a later request's first byte, to the end of that request's head."""
    stalled_seconds = 30.0
    """For which what is written may lie there unread (64 KiB wait then, beside the kernel's buffers)."""

    _head_bytes = 0
    _deadline: TimerHandle | None = None
    _reader: TimerHandle | None = None
    _is_refused = False

    @override
    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_a_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self._stop_waiting_for_the_reader()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._deadline is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"A request's line and headers have at most {MAX_HEAD_BYTES} bytes.")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_a_head()

    @override
    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(self.stalled_seconds, self._abort)

    @override
    def resume_writing(self) -> None:
        self._stop_waiting_for_the_reader()
        super().resume_writing()

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "This is not a valid HTTP/1.1 request.")

    def _expect_a_head(self) -> None:
        if self._deadline is None:
            self._head_bytes = 0
            self._deadline = self.loop.call_later(self.head_seconds, self._too_late)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_waiting_for_the_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _abort(self) -> None:
        """At once: to close would be to wait until everything is read."""
        transport: Any = self.transport
        transport.abort()

    def _too_late(self) -> None:
        self._refuse(408, f"The request's headers did not arrive within {self.head_seconds:g} seconds.")

    def _refuse(self, status: int, message: str) -> None:
        self._head_is_here()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        content = json.dumps(error_body(status, message)).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "connection": "close",
            "x-request-id": uuid4().hex,
            **error_headers(status),
        }
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items()), "", ""]
        self.transport.write("\r\n".join(lines).encode() + content)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closed with bytes of theirs unread, the connection is reset, and our reply is lost to them.
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
