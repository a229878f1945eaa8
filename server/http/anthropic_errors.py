"""The errors of Anthropic's clients, which expect another JSON shape than OpenAI's.

The `code` and the `param` stay, beside the two fields that Anthropic has.
"""

from typing import Any

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
