"""The generating routes: take the composition out of the body, make it resident, hand the rest to vLLM.

Pure ASGI, so that a stream passes through as it is made. The composition is held until vLLM's app returns,
however it returns: finished, failed or the client gone.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import LoraComposeError
from server.asked import asked_composition, without_extensions
from server.merges import Merges
from server.metrics import Metrics
from server.request_body import read_object
from server.residency import Residency
from server.resolver import Pinned, Resolver
from server.vllm_errors import translate_errors

COMPOSITION_HEADER = b"x-lora-composition"


class Generation:
    """An ASGI endpoint in front of the same path of vLLM's app.

    `needs_weights` is False where only names matter (`/tokenize`): then nothing is made resident.
    """

    def __init__(self, vllm: ASGIApp, base: str, parts: "GenerationParts", *, needs_weights: bool) -> None:
        self._vllm = vllm
        self._base = base
        self._parts = parts
        self._needs_weights = needs_weights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_object(Request(scope, receive))
        resolver = self._parts.resolver
        asked = asked_composition(body, self._base, resolver.saved)
        pinned = None if asked is None else resolver.pin(asked)
        name = self._base if pinned is None else pinned.name
        metrics = self._parts.metrics
        watched = _Watched(translate_errors(send), name)
        with metrics.in_flight.track_inprogress():
            async with AsyncExitStack() as stack:
                if pinned is not None and self._needs_weights:
                    servable = await self._parts.merges.servable(pinned)
                    await stack.enter_async_context(self._parts.residency.hold(servable))
                model = name if self._needs_weights else self._base
                await self._forward(scope, receive, watched, without_extensions(body, model))
        metrics.requests.labels(_kind(pinned), f"{watched.status // 100}xx").inc()

    async def _forward(self, scope: Scope, receive: Receive, send: Send, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        headers = [h for h in scope["headers"] if h[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(content)).encode()))
        await self._vllm({**scope, "headers": headers}, _replay(content, receive), send)


class GenerationParts:
    """What the generating routes share."""

    def __init__(self, resolver: Resolver, merges: Merges, residency: Residency, metrics: Metrics) -> None:
        self.resolver = resolver
        self.merges = merges
        self.residency = residency
        self.metrics = metrics


class _Watched:
    """Passes messages on, adding the composition's header and noting the status."""

    def __init__(self, send: Send, name: str) -> None:
        self._send = send
        self._name = name.encode("ascii")
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (COMPOSITION_HEADER, self._name)]
        await self._send(message)


def _kind(pinned: Pinned | None) -> str:
    if pinned is None:
        return "base"
    if not pinned.composition.is_stack:
        return "merge"
    return "single" if len(pinned.versions) == 1 else "stack"


def _replay(content: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """`receive` for an app that is to read `content`; afterwards the client's own messages, its disconnect."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        return await receive()

    return replay


__all__ = ["COMPOSITION_HEADER", "Generation", "GenerationParts", "LoraComposeError"]
