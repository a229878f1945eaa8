"""Reads a JSON request body once, bounded."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from adapters.errors import InvalidRequest
from adapters.validation import unknown_field

MAX_JSON_BYTES = 1024 * 1024
"""Of what administers; a generating route has a limit of its own."""


async def read_bytes(request: Request, limit: int = MAX_JSON_BYTES) -> bytes:
    """The body. Raises HTTPException 413 past `limit`, before the rest is read."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit:
        raise HTTPException(413, f"The request body is larger than {limit} bytes.")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"The request body is larger than {limit} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_object(request: Request, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The body as a JSON object. Raises HTTPException 413, 415, InvalidRequest("invalid_json")."""
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if (
        content_type != "application/json"
        or request.headers.get("content-encoding", "identity") != "identity"
    ):
        raise HTTPException(415, "Send the body as application/json, without a content encoding.")
    return parse_object(await read_bytes(request, limit))


def parse_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object, or InvalidRequest("invalid_json")."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("invalid_json", "The request body is not valid JSON.") from error
    if not isinstance(parsed, dict):
        raise InvalidRequest("invalid_json", "The request body must be a JSON object.")
    return parsed


def read_flag(request: Request, name: str) -> bool:
    """The one query parameter a route takes: `?name` or `?name=true`, `?name=false`, or not there."""
    given = request.query_params.multi_items()
    for other, _ in given:
        if other != name:
            raise unknown_field(other)
    values = {value for _, value in given}
    if not values <= {"", "true"} and values != {"false"}:
        raise InvalidRequest("invalid_request", f"{name} must be true or false.", name)
    return bool(values) and values != {"false"}
