"""The error contract: every refusal is OpenAI's JSON shape with a stable `code`.

One table maps an exception's class to its status. A class that is not in it has the status of its nearest
parent. Permanent faults say `x-should-retry: false`, since the OpenAI client retries 409 and 5xx otherwise;
passing ones say when to come back.
"""

import logging
import math
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route

from lora_compose.adapters import errors
from lora_compose.adapters.errors import AnyCode, Code
from lora_compose.server.engine.errors import AdapterNotPrepared, EngineDied

logger = logging.getLogger(__name__)

STATUS: dict[type[errors.LoraComposeError], int] = {
    errors.InvalidRequest: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.AdapterRejected: 422,
    errors.Unservable: 422,
    errors.QuotaExceeded: 429,
    errors.Busy: 503,
    errors.StorageUnavailable: 503,
}
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
# For refusals that come with a status only: Starlette's own and vLLM's.
CODES: dict[int, Code] = {
    400: Code.INVALID_REQUEST,
    401: Code.INVALID_API_KEY,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.REQUEST_TIMEOUT,
    413: Code.REQUEST_TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
    422: Code.UNPROCESSABLE,
    429: Code.RATE_LIMITED,
    431: Code.HEADERS_TOO_LARGE,
    500: Code.INTERNAL_ERROR,
    501: Code.NOT_IMPLEMENTED,
    503: Code.OVERLOADED,
    504: Code.TIMEOUT,
}
SSE_ERROR = b'data: {"error"'
"""How an error event of a stream begins."""
RETRY_AFTER_SECONDS = "1"
OUR_BUG = "The server failed to answer. Its log has the reason."


def error_type(status: int) -> str:
    """OpenAI's `type` for a status."""
    return TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_body(
    status: int, message: str, code: AnyCode | None = None, param: str | None = None
) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    shown = code or CODES.get(status) or "error"
    return {"error": {"message": message, "type": error_type(status), "param": param, "code": shown}}


def error_headers(status: int) -> dict[str, str]:
    """Whether and when a client should try again."""
    if status in (429, 503):
        return {"retry-after": RETRY_AFTER_SECONDS}
    return {"x-should-retry": "false"}


def error_response(
    status: int, message: str, code: AnyCode | None = None, param: str | None = None
) -> JSONResponse:
    """The whole refusal."""
    return JSONResponse(error_body(status, message, code, param), status, error_headers(status))


def status_of(error: type[errors.LoraComposeError]) -> int:
    """The status of the class, or of its nearest parent in the table; 500 where there is none."""
    return next((STATUS[parent] for parent in error.__mro__ if parent in STATUS), 500)


def refusal(_: Request, error: Exception) -> JSONResponse:
    """A domain error, as its class says."""
    assert isinstance(error, errors.LoraComposeError)
    response = error_response(status_of(type(error)), error.message, error.code, error.param)
    if isinstance(error, errors.QuotaExceeded):
        del response.headers["retry-after"]
        lasting = error.retry_after is None
        response.headers.update(
            {"x-should-retry": "false"}
            if lasting
            else {"retry-after": str(math.ceil(error.retry_after or 0))}
        )
    return response


def not_prepared(_: Request, error: Exception) -> JSONResponse:
    """The engine could not build an adapter that admission let through: ours to look into."""
    logger.error("adapter not prepared: %s", error)
    return error_response(503, "The engine could not prepare this composition.", Code.COMPOSITION_UNAVAILABLE)


def engine_dead(_: Request, __: Exception) -> JSONResponse:
    """It died while this was being made ready for it."""
    return error_response(503, "The engine died; it is being started again.", Code.ENGINE_UNAVAILABLE)


def http_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's 404, 405 and the like."""
    assert isinstance(error, HTTPException)
    detail = error.detail or HTTPStatus(error.status_code).phrase
    response = error_response(error.status_code, detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = _allowed(request)
    return response


def _allowed(request: Request) -> str:
    """Every method the path takes; Starlette names those of one route only."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    found = (route.methods or () for route in routes if route.matches(request.scope)[0] != Match.NONE)
    return ", ".join(sorted({method for methods in found for method in methods}))


def unexpected(_: Request, __: Exception) -> JSONResponse:
    """A bug of ours. Its text stays in the log."""
    return error_response(500, OUR_BUG)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    errors.LoraComposeError: refusal,
    AdapterNotPrepared: not_prepared,
    EngineDied: engine_dead,
    HTTPException: http_error,
    Exception: unexpected,
}
