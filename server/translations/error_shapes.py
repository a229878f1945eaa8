"""Errors in the shapes of other servers. Our `code` and `param` stay in them."""

from typing import Any

VALIDATION, OVERLOADED, GENERATION = "validation", "overloaded", "generation"


def tgi_error_type(status: int) -> str:
    """TGI's `error_type` for a status."""
    if status in (429, 503):
        return OVERLOADED
    return GENERATION if status >= 500 else VALIDATION


def tgi_error(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """TGI's `{"error", "error_type"}`. Its clients choose an exception by `error_type`."""
    return {"error": body["error"]["message"], "error_type": tgi_error_type(status), **_of_ours(body)}


def ollama_error(_: int, body: dict[str, Any]) -> dict[str, Any]:
    """Ollama's `{"error"}`."""
    return {"error": body["error"]["message"], **_of_ours(body)}


def _of_ours(body: dict[str, Any]) -> dict[str, Any]:
    return {"code": body["error"]["code"], "param": body["error"]["param"]}
