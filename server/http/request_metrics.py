"""Counts and times every request where it enters, so that a refusal is seen wherever it came from.

Pure ASGI. What is measured is what a client waits for: queueing, preparing and merging included, which
vLLM's own histograms of the same names leave out. Labels are routes, statuses and codes of ours, never a
client's text.
"""

import json
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.adapters.errors import Code
from lora_compose.server.errors import SSE_ERROR
from lora_compose.server.metrics import Metrics

KIND = "composition_kind"
"""Where in `scope["state"]` a generating route says what kind of composition it serves."""
UNRESOLVED = "unresolved"
"""The kind of a request that was refused before it was known what it asks for."""
EVENT_STREAM = b"text/event-stream"
DONE = b"data: [DONE]"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_CODES = 200


class RequestMetricsMiddleware:
    """Stands before authentication: what that refuses counts as well."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._codes: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        watched = _Watched(send, self._metrics, state)
        try:
            await self._app(scope, receive, watched)
        except Exception:
            watched.status = watched.status or 500
            raise
        finally:
            self._count(scope, watched)

    def _count(self, scope: Scope, watched: "_Watched") -> None:
        metrics, status = self._metrics, str(watched.status or "none")
        route = getattr(scope.get("route"), "path", "other")
        metrics.http_requests.labels(route, status).inc()
        if watched.status >= 400:
            metrics.refusals.labels(self._bounded(watched.code())).inc()
        kind = scope["state"].get(KIND)
        if kind is None:
            return
        metrics.requests.labels(kind, f"{status[0]}xx" if watched.status else status).inc()
        if 200 <= watched.status < 300:
            metrics.e2e_seconds.labels(kind).observe(time.perf_counter() - watched.started)

    def _bounded(self, code: str) -> str:
        """Our codes are literals of this program; should one ever not be, it can not fill the memory."""
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES or not _CODE.fullmatch(code):
                return "other"
            self._codes.add(code)
        return code


class _Watched:
    """Passes messages on; notes the status and a refusal's body, and times the events of a stream."""

    def __init__(self, send: Send, metrics: Metrics, state: dict[str, object]) -> None:
        self.started = time.perf_counter()
        self.status = 0
        """0 while no reply has begun; it stays so where the client was gone first."""
        self._send = send
        self._metrics = metrics
        self._state = state
        self._streams = False
        self._last_event: float | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            types = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            self._streams = any(value.startswith(EVENT_STREAM) for value in types)
        elif self._streams:
            self._time(message.get("body", b""))
        elif self.status >= 400 and len(self._body) < 65536:
            self._body += message.get("body", b"")
        await self._send(message)

    def _time(self, event: bytes) -> None:
        kind = self._state.get(KIND)
        if kind is None or not event or event.startswith(DONE):
            return
        if event.startswith(SSE_ERROR):
            self._metrics.stream_errors.inc()
            return
        now = time.perf_counter()
        if self._last_event is None:
            self._metrics.first_token_seconds.labels(kind).observe(now - self.started)
        else:
            self._metrics.inter_token_seconds.labels(kind).observe(now - self._last_event)
        self._last_event = now

    def code(self) -> str:
        """The refusal's code; for a body that is not ours to read, `internal_error` or `other`."""
        try:
            return str(json.loads(self._body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return Code.INTERNAL_ERROR if self.status >= 500 else "other"
