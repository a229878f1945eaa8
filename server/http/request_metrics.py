"""Counts and times every request, including refusals of any part of the server. It is pure ASGI.

The times are those that a client waits, including queueing, preparing and merging, which vLLM's own
histograms of the same names leave out. Labels are routes, statuses and our error codes, never text from a
client.
"""

import json
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.adapters.errors import Code
from lora_compose.server.errors import ANTHROPIC_SSE_ERROR, SSE_ERROR
from lora_compose.server.metrics import Metrics

KIND = "composition_kind"
"""The key in `scope["state"]` under which a generating route stores the kind of its composition."""
UNRESOLVED = "unresolved"
"""The kind of a request that was refused before its composition was known."""
EVENT_STREAM = b"text/event-stream"
DONE = b"data: [DONE]"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_CODES = 200


class RequestMetricsMiddleware:
    """The middleware before authentication, so that its refusals are counted too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._codes: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        observer = _ResponseObserver(send, self._metrics, state)
        try:
            await self._app(scope, receive, observer)
        except Exception:
            observer.status = observer.status or 500
            raise
        finally:
            self._count(scope, observer)

    def _count(self, scope: Scope, observer: "_ResponseObserver") -> None:
        metrics, status = self._metrics, str(observer.status or "none")
        route = getattr(scope.get("route"), "path_format", "other")
        metrics.http_requests.labels(route, status).inc()
        if observer.status >= 400:
            metrics.refusals.labels(self._bounded(observer.code())).inc()
        kind = scope["state"].get(KIND)
        if kind is None:
            return
        metrics.requests.labels(kind, f"{status[0]}xx" if observer.status else status).inc()
        if 200 <= observer.status < 300:
            metrics.e2e_seconds.labels(kind).observe(time.perf_counter() - observer.started)

    def _bounded(self, code: str) -> str:
        """The code, or "other" beyond `_MAX_CODES` different codes, so that the series stay bounded."""
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES or not _CODE.fullmatch(code):
                return "other"
            self._codes.add(code)
        return code


class _ResponseObserver:
    """Forwards messages, keeps the status and the body of a refusal, and times the events of a stream."""

    def __init__(self, send: Send, metrics: Metrics, state: dict[str, object]) -> None:
        self.started = time.perf_counter()
        self.status = 0
        """HTTP status; 0 until the response starts, and if the client disconnects before that."""
        self._send = send
        self._metrics = metrics
        self._state = state
        self._is_stream = False
        self._last_event: float | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            self._is_stream = any(value.startswith(EVENT_STREAM) for value in types)
        elif self._is_stream:
            self._time(message.get("body", b""))
        elif self.status >= 400 and len(self._body) < 65536:
            self._body += message.get("body", b"")
        await self._send(message)

    def _time(self, event: bytes) -> None:
        kind = self._state.get(KIND)
        if kind is None or not event or event.startswith(DONE):
            return
        if event.startswith((SSE_ERROR, ANTHROPIC_SSE_ERROR)):
            self._metrics.stream_errors.inc()
            return
        now = time.perf_counter()
        if self._last_event is None:
            self._metrics.first_token_seconds.labels(kind).observe(now - self.started)
        else:
            self._metrics.inter_token_seconds.labels(kind).observe(now - self._last_event)
        self._last_event = now

    def code(self) -> str:
        """The error code of the refusal; `internal_error` or `other` if the body has another shape."""
        try:
            return str(json.loads(self._body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return Code.INTERNAL_ERROR if self.status >= 500 else "other"
