"""The generating routes: take the composition out of the body, make it resident, hand the rest to vLLM.

Pure ASGI, so that a stream passes through as it is made. The composition is held until vLLM's app returns,
however it returns: finished, failed or the client gone.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.engine.launch import BYTES_A_TOKEN
from server.engine.token_charge import charging
from server.from_request import body_for_vllm, composition_from_body
from server.fusion import Fusion
from server.merges import Merges
from server.metrics import Metrics
from server.request_body import read_object
from server.request_log import DIGESTS
from server.request_metrics import KIND, UNRESOLVED
from server.residency import Residency
from server.resolver import Pinned, Resolver
from server.responses_input import check_answers
from server.sequences import sequences
from server.tenants.caller import Caller
from server.tracing import request_span, step
from server.traffic import Traffic
from server.vllm_errors import translate_errors

COMPOSITION_HEADER = b"x-lora-composition"
FREE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Generation:
    """An ASGI endpoint in front of the same path of vLLM's app."""

    vllm: ASGIApp
    base: str
    is_alive: Callable[[], bool]
    """Whether what vLLM answers is the engine's."""
    longest_body: int
    """Bytes."""
    resolver: Resolver
    merges: Merges
    residency: Residency
    fusion: Fusion
    metrics: Metrics
    traffic: Traffic
    needs_weights: bool = True
    """False where only names matter (`/tokenize`): then nothing is made resident, and vLLM sees the base."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if self.needs_weights:
            state[KIND] = UNRESOLVED
        with request_span(scope) as scope:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"]["caller"]
        body = await self._read(Request(scope, receive), caller)
        check_answers(body.get("input"))
        with step("resolve"):
            asked = composition_from_body(body, self.base, caller.saved(self.resolver.saved))
            pinned = None if asked is None else self.resolver.pin(asked, caller.sees)
        name = self.base if pinned is None else pinned.name
        self._note(scope["state"], pinned)
        with self.metrics.in_flight.track_inprogress(), self.traffic.counted(scope):
            async with AsyncExitStack() as stack:
                stack.enter_context(caller.account.sequences(sequences(body)))
                if self.needs_weights:
                    await self._make_ready(pinned, caller, stack)
                content = json.dumps(self._given(body, name, caller)).encode()
                stack.enter_context(charging(caller.charge_tokens if caller.pays_tokens else None))
                inner = _with_length(scope, len(content)), _replay(content, receive)
                await self.vllm(*inner, translate_errors(_named(send, name), self.is_alive))

    def _note(self, state: dict[str, Any], pinned: Pinned | None) -> None:
        """For the metrics and the log."""
        if pinned is not None:
            state[DIGESTS] = [version.digest[:12] for _, version in pinned.versions]
        if self.needs_weights:
            state[KIND] = _kind(pinned)
            self.metrics.adapter_requests.count(pinned.names if pinned else ())

    async def _read(self, request: Request, caller: Caller) -> dict[str, Any]:
        """Where tokens are paid for so is a large body, before it is read: even to refuse it takes time."""
        caller.account.demand("tokens_per_minute", 0)
        declared = request.headers.get("content-length", str(self.longest_body))
        if declared.isdigit() and int(declared) > FREE_BYTES:
            caller.charge_tokens(min(int(declared), self.longest_body) // BYTES_A_TOKEN)
        return await read_object(request, self.longest_body)

    async def _make_ready(self, pinned: Pinned | None, caller: Caller, stack: AsyncExitStack) -> None:
        """Merged and resident for as long as `stack` is open."""
        servable = None
        if pinned is not None:
            with step("merge"):
                servable = await self.merges.servable(pinned, caller.build)
            if missing := self.residency.missing(servable):
                caller.build(missing)
            with step("prepare"):
                await stack.enter_async_context(self.residency.hold(servable))
        self.fusion.check(servable)

    def _given(self, body: dict[str, Any], name: str, caller: Caller) -> dict[str, Any]:
        """What vLLM reads."""
        if not self.needs_weights:
            return body_for_vllm(body, self.base)
        return body_for_vllm(body, name) | caller.salted(body)


def _named(send: Send, name: str) -> Send:
    """A `send` that adds the composition's header."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (COMPOSITION_HEADER, name.encode("ascii"))]
        await send(message)

    return named


def _kind(pinned: Pinned | None) -> str:
    if pinned is None:
        return "base"
    if not pinned.composition.is_stack:
        return "merge"
    return "single" if len(pinned.versions) == 1 else "stack"


def _with_length(scope: Scope, length: int) -> dict[str, Any]:
    headers = [h for h in scope["headers"] if h[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _replay(content: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """`receive` for an app that is to read `content`; afterwards the client's own messages."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        return await receive()

    return replay
