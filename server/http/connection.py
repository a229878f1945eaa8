"""uvicorn's HTTP/1.1 protocol with our error contract, a limit on the request head, and two time limits.

uvicorn waits without a limit for the headers of a request, and for a client to read its response. A client
that opens hundreds of connections could keep all of them open.
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
    """One connection. It is closed after a refusal, because the start of the next request is unknown."""

    head_seconds = 10.0
    """The longest time from the connection, or a later request's first byte, to the end of the head."""
    stalled_seconds = 30.0
    """The longest time without reading by the client while 64 KiB wait here, besides the kernel's buffers."""

    _head_bytes = 0
    _head_timer: TimerHandle | None = None
    _reader_timer: TimerHandle | None = None
    _is_refused = False

    @override
    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_reader_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"The request line and headers must have at most {MAX_HEAD_BYTES} bytes.")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head_timer()

    @override
    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self.stalled_seconds, self._abort)

    @override
    def resume_writing(self) -> None:
        self._stop_reader_timer()
        super().resume_writing()

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "The request is not valid HTTP/1.1.")

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _abort(self) -> None:
        """End the connection at once. `close` would wait until the client has read everything."""
        transport: Any = self.transport
        transport.abort()

    def _head_timed_out(self) -> None:
        self._refuse(408, f"The request's headers did not arrive within {self.head_seconds:g} seconds.")

    def _refuse(self, status: int, message: str) -> None:
        self._stop_head_timer()
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
        # Closing now could reset the connection (unread bytes of the client), and the reply would be lost.
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
