"""Translates vLLM's error bodies into the error contract of this server.

vLLM's `code` is the HTTP status and its `type` a class name. Clients that decide by our codes need one shape.
In a stream, vLLM sends an error as a server-sent event, which is translated too.
"""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Send

from lora_compose.adapters.errors import Code
from lora_compose.server.errors import (
    ANTHROPIC_SSE_ERROR,
    CODES,
    INTERNAL_ERROR_MESSAGE,
    SSE_ERROR,
    error_body,
    error_headers,
)
from lora_compose.server.http.anthropic_errors import anthropic_body


def translate_errors(send: Send, is_alive: Callable[[], bool]) -> Send:
    """A `send` that rewrites vLLM's refusals and forwards all other messages unchanged."""
    refused: Message | None = None
    chunks: list[bytes] = []

    async def translated(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] >= 400:
            refused = message if is_alive() else {**message, "status": 503}
        elif refused is not None and message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_refusal(send, refused, b"".join(chunks))
        else:
            body = message.get("body", b"")
            if body.startswith(SSE_ERROR):
                message = {**message, "body": _sse(body, is_alive())}
            elif body.startswith(ANTHROPIC_SSE_ERROR):
                message = {**message, "body": _anthropic_sse(body, is_alive())}
            await send(message)

    return translated


async def _send_refusal(send: Send, start: Message, body: bytes) -> None:
    status = start["status"]
    content = json.dumps(engine_died() if status == 503 else contract_body(status, body)).encode()
    kept = [h for h in start["headers"] if h[0].lower() not in (b"content-length", b"content-type")]
    headers = [
        *kept,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *((name.encode(), value.encode()) for name, value in error_headers(status).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def contract_body(status: int, body: bytes) -> dict[str, Any]:
    """vLLM's error body in our shape. The text of another shape of body, and of a status 500, which may
    be the text of a Python exception, is not sent to the client."""
    if status == 500:
        return error_body(500, INTERNAL_ERROR_MESSAGE)
    try:
        error = json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, param = "The request was refused.", None
    code = Code.MODEL_NOT_FOUND if status == 404 and param == "model" else CODES.get(status)
    return error_body(status, message, code, param)


def engine_died() -> dict[str, Any]:
    """The error body for requests in flight when the engine died. A retry reaches the next engine."""
    return error_body(503, "The engine died and is being restarted. Try again.", Code.ENGINE_UNAVAILABLE)


def _anthropic_sse(event: bytes, is_alive: bool) -> bytes:
    """The event in Anthropic's shape. vLLM's own text may be that of a Python exception."""
    _, _, rest = event.partition(b"\n\n")
    status, body = (500, error_body(500, INTERNAL_ERROR_MESSAGE)) if is_alive else (503, engine_died())
    return ANTHROPIC_SSE_ERROR + json.dumps(anthropic_body(status, body)).encode() + b"\n\n" + rest


def _sse(event: bytes, is_alive: bool) -> bytes:
    payload, _, rest = event.removeprefix(b"data: ").partition(b"\n\n")
    try:
        status = int(json.loads(payload)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        status = 500
    translated = contract_body(status, payload) if is_alive else engine_died()
    return b"data: " + json.dumps(translated).encode() + b"\n\n" + rest
