"""Rewrites refusals for Anthropic's clients, which expect another JSON shape than OpenAI's.

The `code` and the `param` stay, beside the two fields that Anthropic has.
"""

import json
from typing import Any

from starlette.types import Message, Send

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's error types by status. https://docs.anthropic.com/en/api/errors"""


def anthropic_type(status: int) -> str:
    """Anthropic's error `type` for a status."""
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def anthropic_body(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """An error body of this server in Anthropic's shape: `{"type": "error", "error": {type, message}}`."""
    return {"type": "error", "error": {**body["error"], "type": anthropic_type(status)}}


def as_anthropic(send: Send) -> Send:
    """A `send` that rewrites the body of a refusal and forwards all other messages unchanged."""
    refused: Message | None = None
    chunks: list[bytes] = []

    async def rewritten(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] >= 400:
            refused = message
        elif refused is not None and message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                await _send(send, refused, b"".join(chunks))
        else:
            await send(message)

    return rewritten


async def _send(send: Send, start: Message, content: bytes) -> None:
    if content:  # the response to HEAD has no body
        content = json.dumps(anthropic_body(start["status"], json.loads(content))).encode()
        kept = [header for header in start["headers"] if header[0].lower() != b"content-length"]
        start = {**start, "headers": [*kept, (b"content-length", str(len(content)).encode())]}
    await send(start)
    await send({"type": "http.response.body", "body": content})
