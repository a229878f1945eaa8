"""Sends every answer of a translated route in its client's shape: successes, refusals and broken streams.

It is outside of authentication and metrics. These therefore see the same answers as on any other route, and
their own refusals get the client's shape too.
"""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Scope, Send

from lora_compose.server.generation.translation import REPLY, Reply
from lora_compose.server.http.anthropic_errors import anthropic_body
from lora_compose.server.paths import is_anthropic
from lora_compose.server.translations.error_shapes import ollama_error, tgi_error
from lora_compose.server.translations.events import DONE, events
from lora_compose.server.translations.ollama_reply import line
from lora_compose.server.translations.tgi_reply import sse

ErrorShape = Callable[[int, dict[str, Any]], dict[str, Any]]


def in_client_shape(scope: Scope, send: Send) -> Send:
    """A `send` that translates the answer if the path belongs to another server; `send` itself if not."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path.startswith("/api/"):
        return _Answer(scope, send, ollama_error, line)
    if path in ("/generate", "/generate_stream", "/info") or (path == "/" and scope["method"] == "POST"):
        return _Answer(scope, send, tgi_error, sse)
    if is_anthropic(path):  # vLLM's own route has its streams in this shape already
        return _Answer(scope, send, anthropic_body, sse)
    return send


class _Answer:
    """Translates the messages of one answer."""

    def __init__(self, scope: Scope, send: Send, shape: ErrorShape, event: Callable[[object], bytes]) -> None:
        self._scope, self._send = scope, send
        self._shape, self._event = shape, event
        self._start: Message = {}
        self._handle = self._pass
        self._kept = b""
        self._failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        else:
            await self._handle(message)

    async def _begin(self, start: Message) -> None:
        self._start = start
        if start["status"] >= 400 or (self._reply is not None and not _is_stream(start)):
            self._handle = self._collect
        elif self._reply is not None:
            self._handle = self._stream
            await self._send(_with_headers(start, {b"content-type": self._reply.media_type.encode()}))
        else:
            await self._send(start)

    @property
    def _reply(self) -> Reply | None:
        reply: Reply | None = self._scope.get("state", {}).get(REPLY)
        return reply

    async def _pass(self, message: Message) -> None:
        await self._send(message)

    async def _collect(self, message: Message) -> None:
        self._kept += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = self._kept if self._scope["method"] == "HEAD" else self._whole()
        headers = {b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
        await self._send(_with_headers(self._start, headers) if body else self._start)
        await self._send({"type": "http.response.body", "body": body})

    def _whole(self) -> bytes:
        content, status = json.loads(self._kept), self._start["status"]
        translated = (
            self._shape(status, content)
            if status >= 400 or self._reply is None
            else self._reply.whole(content)
        )
        return json.dumps(translated, ensure_ascii=False).encode()

    async def _stream(self, message: Message) -> None:
        found, self._kept = events(self._kept + message.get("body", b""))
        body = b"".join(self._translated(event) for event in found)
        more = message.get("more_body", False)
        if body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _translated(self, event: bytes) -> bytes:
        """An error is the last thing that the client gets."""
        assert self._reply is not None
        if self._failed:
            return b""
        if event == DONE:
            return b"".join(self._reply.end())
        content = json.loads(event)
        if "error" in content:
            self._failed = True
            return self._event(self._shape(500, content))
        return b"".join(self._reply.event(content))


def _is_stream(start: Message) -> bool:
    return any(
        n.lower() == b"content-type" and v.startswith(b"text/event-stream") for n, v in start["headers"]
    )


def _with_headers(start: Message, headers: dict[bytes, bytes]) -> Message:
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in headers]
    return {**start, "headers": [*kept, *headers.items()]}
