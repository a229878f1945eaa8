"""uvicorn's HTTP/1.1 protocol with our error contract, a limit on the request head, and two time limits.

Its refusals are made outside the app, so it adds the CORS headers itself. They are spaced in time.

uvicorn waits without a limit for the headers of a request, and for a client to read its response. A client
that opens hundreds of connections could keep all of them open.

The server offers no other protocol, so it ignores the header `Upgrade`. RFC 9110, section 7.8, allows that.
uvicorn would lose the body of such a request, or read a body that arrives later as the next request.
"""

import json
from asyncio import TimerHandle, Transport
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httptools
from starlette.datastructures import Headers
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_compose.server.errors import error_body, error_headers, error_response
from lora_compose.server.http.access_log import RequestLogMiddleware
from lora_compose.server.http.cors import Cors, cors_of, no_cors
from lora_compose.server.http.pace import Pace
from lora_compose.server.http.request_id import RequestIdMiddleware
from lora_compose.server.options.http_options import HttpOptions

MAX_HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 1.0


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is closed after a refusal, because the start of the next request is unknown."""

    max_head_bytes = MAX_HEAD_BYTES
    """The most bytes of the request line and the headers."""
    max_headers = 256
    """The most headers of a request."""
    head_seconds = 10.0
    """The longest time from the connection, or a later request's first byte, to the end of the head."""
    stalled_seconds = 30.0
    """The longest time without reading by the client while 64 KiB wait here, besides the kernel's buffers."""

    cors: Cors = staticmethod(no_cors)
    """The CORS headers of a response, by the headers of its request."""
    pace = Pace()
    """The times of all refusals of these connections."""

    _head_bytes = 0
    """Bytes of the head, or of what is between two parts of the body: trailers and chunk extensions."""
    _head_timer: TimerHandle | None = None
    _reader_timer: TimerHandle | None = None
    _is_in_body = False
    _is_refused = False
    _refusal = b""
    """The response that waits until those to earlier requests are complete."""

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
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        is_expecting = self._head_timer is not None or self._is_in_body
        if is_expecting and self._head_bytes > self.max_head_bytes:
            self._refuse_large_head()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head_timer()

    @override
    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._check_head()
        self._stop_head_timer()
        self.app = self._no_websocket() if self._is_websocket_handshake() else self.config.loaded_app
        super().on_headers_complete()  # raises if the URL is invalid
        self._is_in_body, self._head_bytes = True, 0

    def _check_head(self) -> None:
        """Refuse a head that arrived in one piece. Raises an exception, which ends the parsing."""
        if len(self.headers) > self.max_headers:
            self._refuse(431, f"A request must have at most {self.max_headers} headers.")
        elif (
            len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.max_head_bytes
        ):
            self._refuse_large_head()
        else:
            return
        raise httptools.HttpParserError

    def _refuse_large_head(self) -> None:
        self._refuse(431, f"The request line and headers must have at most {self.max_head_bytes} bytes.")

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # else it is a trailer, which no route reads
            super().on_header(name, value)

    @override
    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._is_in_body = False
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._send_refusal_in_turn()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self.stalled_seconds, self._abort)

    @override
    def resume_writing(self) -> None:
        self._stop_reader_timer()
        super().resume_writing()

    @override
    def _should_upgrade(self) -> bool:
        return False

    @override
    def send_400_response(self, msg: str) -> None:
        if not self._is_refused:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(400, "The request is not valid HTTP/1.1.")

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Parse a head with `Upgrade` twice: as received, and without that header.

        The parser (llhttp) ends a message with `Upgrade` at the end of its head, without a body. It gives the
        exact position. No callback has started the request yet. A new parser then gets the same head without
        `Upgrade`, and after it the bytes that follow. So the parser alone decides where the head ends, what
        its headers are and how long the body is: a search for the header in the received bytes could differ
        from the parser. The second head cannot upgrade, because the parser knows only two causes, the header
        and the method CONNECT. The head is the only copy, and it is in `headers` already.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            if self.parser.get_method() == b"CONNECT":
                self._refuse(400, "This server is not a proxy. It does not offer the method CONNECT.")
                return
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _is_websocket_handshake(self) -> bool:
        """A proxy may have removed `Upgrade`. The key is in every handshake and in no other request."""
        is_get = self.parser.get_method() == b"GET"
        return is_get and any(name == b"sec-websocket-key" for name, _ in self.headers)

    def _no_websocket(self) -> ASGIApp:
        """The app that answers a WebSocket handshake."""
        message = "This server has no WebSocket endpoint. Send plain HTTP requests."
        return RequestIdMiddleware(RequestLogMiddleware(self._refusing_app(400, message)))

    def _refusing_app(self, status: int, message: str) -> ASGIApp:
        response = error_response(status, message)
        response.headers.update(self.cors(Headers(raw=self.headers)))
        return response

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
        """Refuse what arrives now, after the responses to earlier requests. Ignore what arrives later."""
        self._stop_head_timer()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        # A connection without a request has no headers yet.
        headers = Headers(raw=getattr(self, "headers", []))
        self._refusal = _response(status, message, self.cors(headers))
        if self._is_in_body:
            self._refuse_body(status, message)
        self._send_refusal_in_turn()

    def _refuse_body(self, status: int, message: str) -> None:
        """The request that arrives now is known to uvicorn already, so its only response is the refusal."""
        if self.cycle.response_complete:
            self._end()
        elif self.pipeline:
            self.cycle.keep_alive = False
            app: Any = RequestIdMiddleware(self._refusing_app(status, message))
            self.pipeline[0] = (self.cycle, app)
            self._refusal = b""
        elif self.cycle.response_started:
            self._abort()
        else:
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()

    def _send_refusal_in_turn(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._refusal and not is_answering:
            refusal, self._refusal = self._refusal, b""
            self.loop.call_later(self.pace.delay(), self._write_refusal, refusal)

    def _write_refusal(self, refusal: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal)
            self._end()

    def _end(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closing now could reset the connection (unread bytes of the client), and the reply would be lost.
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def protocol_with(options: HttpOptions) -> type[HttpProtocol]:
    """The protocol of one server, with the limits and the CORS headers of these options."""
    own = {
        "max_head_bytes": options.h11_max_incomplete_event_size,
        "max_headers": options.h11_max_header_count,
        "cors": staticmethod(cors_of(options)),
        "pace": Pace(),
    }
    return type("ConfiguredHttpProtocol", (HttpProtocol,), own)


def _response(status: int, message: str, cors: Mapping[str, str]) -> bytes:
    content = json.dumps(error_body(status, message)).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "connection": "close",
        "x-request-id": uuid4().hex,
        **error_headers(status),
        **cors,
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + content
