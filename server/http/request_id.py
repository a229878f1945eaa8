"""Adds the header `x-request-id` to every response: the id that the client sent, or a new one."""

import re
from contextvars import ContextVar
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request, for log lines. uvicorn answers each request in its own task and context. The
value is not reset, because uvicorn logs errors after the app has returned."""
_SAFE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestIdMiddleware:
    """Keeps a well-formed id and replaces any other, so that it cannot forge a header or a log line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = received if _SAFE.fullmatch(received) else uuid4().hex.encode()
        REQUEST_ID.set(request_id.decode())
        others = [header for header in scope["headers"] if header[0] != HEADER]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0].lower() != HEADER]
                message["headers"] = [*kept, (HEADER, request_id)]
            await send(message)

        await self._app({**scope, "headers": [*others, (HEADER, request_id)]}, receive, send_with_id)
