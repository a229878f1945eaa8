"""The endpoint of the generating routes: resolve the composition, make it resident, and forward to vLLM.

It is pure ASGI, so that a stream is forwarded while it is generated. The composition is held until vLLM's app
returns, whether the request finished, failed or the client disconnected.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.server.compositions.from_request import body_for_vllm
from lora_compose.server.compositions.resolver import ResolvedComposition
from lora_compose.server.generation.accounting import Accounting
from lora_compose.server.generation.offered import require_offered
from lora_compose.server.generation.request_checks import check_answers, check_size, sequences
from lora_compose.server.generation.stored_responses import own_response
from lora_compose.server.generation.translation import REPLY, Model, Translation
from lora_compose.server.generation.vllm_errors import translate_errors
from lora_compose.server.http.body import longest_body, read_object
from lora_compose.server.http.tracing import request_span, step
from lora_compose.server.paths import RESPONSES
from lora_compose.server.pipeline import CompositionPipeline
from lora_compose.server.tenants.caller import Caller

COMPOSITION_HEADER = b"x-lora-composition"


class GeneratingEngine(Model, Protocol):
    """The parts of the engine that this endpoint uses."""

    @property
    def app(self) -> ASGIApp: ...

    @property
    def base(self) -> str: ...

    @property
    def takes_pictures(self) -> bool: ...

    @property
    def paths(self) -> frozenset[str]: ...

    def is_alive(self) -> bool: ...

    async def background_ended(self, response_id: str) -> None: ...


@dataclass(frozen=True)
class GenerationEndpoint:
    """An ASGI endpoint that forwards to the same path of vLLM's app, or to that of its translation."""

    engine: GeneratingEngine
    pipeline: CompositionPipeline
    accounting: Accounting
    needs_weights: bool = True
    """False for routes that only resolve names (`/tokenize`): nothing is loaded, and vLLM uses the base."""
    translation: Translation | None = None
    """For a route of another server: how its requests become requests for vLLM."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.translation is None:
            require_offered(scope["path"], self.engine.paths)
        longest = longest_body(self.engine.max_model_len, takes_pictures=self.engine.takes_pictures)
        with request_span(scope) as scope:
            self.accounting.arrived(scope, longest, generates=self.needs_weights)
            takes_forms = self.translation is not None and self.translation.takes_forms
            body = await read_object(Request(scope, receive), longest, takes_forms=takes_forms)
            check_size(body, self.engine.max_model_len)
            if self.translation is not None:
                translated = self.translation.translate(body, self.engine)
                require_offered(translated.path, self.engine.paths)
                scope["state"][REPLY] = translated.reply
                body, scope = translated.body, _with_path(scope, translated.path)
            await self._answer(body, scope, receive, send)

    async def _answer(self, body: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"]["caller"]
        is_response = scope["path"] == RESPONSES
        if is_response:
            check_answers(body.get("input"))
            body = own_response(body, caller.key.id)
        count = sequences(body, scope["path"])
        with step("resolve"):
            resolved = self.pipeline.resolve(body, caller)
        name = self.engine.base if resolved is None else resolved.name
        with self.accounting.answering(scope, resolved, count, generates=self.needs_weights):
            async with self._ready(resolved, caller):
                content = json.dumps(self._body_for_vllm(body, name, caller)).encode()
                inner = _with_length(scope, len(content)), _replay(content, receive)
                await self.engine.app(
                    *inner, translate_errors(_with_composition_header(send, name), self.engine.is_alive)
                )
                if is_response:
                    await self.engine.background_ended(body["request_id"])

    def _ready(
        self, resolved: ResolvedComposition | None, caller: Caller
    ) -> AbstractAsyncContextManager[None]:
        return self.pipeline.ready(resolved, caller) if self.needs_weights else nullcontext()

    def _body_for_vllm(self, body: dict[str, Any], name: str, caller: Caller) -> dict[str, Any]:
        if not self.needs_weights:
            return body_for_vllm(body, self.engine.base)
        return body_for_vllm(body, name) | caller.salted(body.get("cache_salt"))


def _with_composition_header(send: Send, name: str) -> Send:
    """A `send` that adds the header `x-lora-composition`."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (COMPOSITION_HEADER, name.encode("ascii"))]
        await send(message)

    return send_with_header


def _with_path(scope: Scope, path: str) -> Scope:
    """`scope` with another path below the same root path."""
    full = scope.get("root_path", "") + path
    return {**scope, "path": full, "raw_path": full.encode("ascii")}


def _with_length(scope: Scope, length: int) -> dict[str, Any]:
    """`scope` for a JSON body of `length` bytes."""
    of_body = (b"content-length", b"content-type", b"transfer-encoding")
    own = [(b"content-length", str(length).encode()), (b"content-type", b"application/json")]
    return {**scope, "headers": [*(h for h in scope["headers"] if h[0] not in of_body), *own]}


def _replay(content: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that returns `content` as the body, and then the messages of the client."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        return await receive()

    return replay
