"""Writes one log line for each request: route, status, duration and key.

The line has the route's pattern and the adapters' digests. It never has the path, a header or the body of the
request.
"""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.server.http.request_metrics import KIND
from lora_compose.server.paths import PLAYGROUND, PROBES

logger = logging.getLogger(__name__)

DIGESTS = "digests"
"""The key in `scope["state"]` under which a generating route stores the digests of its adapters."""
EXPECTED = "expected"
"""The key in `scope["state"]` of a probe that fails because the model is loading."""
POLLED = PROBES | {"/metrics"}
"""Paths that monitoring requests all the time. Only errors are logged, as for the playground's files."""


class RequestLogMiddleware:
    """It also logs requests that arrive while no engine is running. `unlogged` are paths without a line."""

    def __init__(self, app: ASGIApp, unlogged: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._unlogged = unlogged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unlogged:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            is_polled = scope["path"] in POLLED or scope["path"].startswith(PLAYGROUND)
            if not is_polled or (status >= 400 and EXPECTED not in scope.get("state", {})):
                _log(scope, status, time.perf_counter() - started)


def _log(scope: Scope, status: int, seconds: float) -> None:
    level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "answered", extra={"fields": _fields(scope, status, seconds)})


def _fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """The fields of the line. Status 0 means that the client disconnected before the response started."""
    state = scope.get("state", {})
    caller = state.get("caller")
    fields = {
        "method": scope["method"] if scope["method"].isalpha() else "other",
        "route": getattr(scope.get("route"), "path_format", "none"),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "key": None if caller is None else caller.key.id,
        "kind": state.get(KIND),
        "adapters": state.get(DIGESTS),
    }
    return {name: value for name, value in fields.items() if value is not None}
