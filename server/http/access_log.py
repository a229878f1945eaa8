"""One log line for every request: which route, how it ended, how long it took, and whose it was.

By the route's pattern and the adapters' digests, never by a path, a header or a body of the client's.
"""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.server.http.request_metrics import KIND
from lora_compose.server.paths import PROBES

logger = logging.getLogger(__name__)

DIGESTS = "digests"
"""Where in `scope["state"]` a generating route says which adapters it serves."""
QUIET = PROBES | {"/metrics"}
"""Asked all the time, by machines: told only when it goes wrong."""


class RequestLogMiddleware:
    """Stands around everything, also while there is no engine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if status >= 400 or scope["path"] not in QUIET:
                _tell(scope, status, time.perf_counter() - started)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    level = logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "answered", extra={"fields": _fields(scope, status, seconds)})


def _fields(scope: Scope, status: int, seconds: float) -> dict[str, Any]:
    """Status 0: the client was gone before there was one."""
    state = scope.get("state", {})
    caller = state.get("caller")
    fields = {
        "method": scope["method"] if scope["method"].isalpha() else "other",
        "route": getattr(scope.get("route"), "path", "none"),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "key": None if caller is None else caller.key.id,
        "kind": state.get(KIND),
        "adapters": state.get(DIGESTS),
    }
    return {name: value for name, value in fields.items() if value is not None}
