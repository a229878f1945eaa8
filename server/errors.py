"""The error contract: every refusal has OpenAI's JSON shape and a stable `code`.

One table maps an exception's class to its status. A class that is not in the table has the status of its
nearest parent. Permanent errors have the header `x-should-retry: false`, because the OpenAI client would
retry 409 and 5xx otherwise. Temporary errors have `retry-after`.
"""

import logging
import math
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route

from lora_compose.adapters import errors
from lora_compose.adapters.errors import AnyCode, Code
from lora_compose.server.engine.errors import AdapterNotPrepared, EngineDied
from lora_compose.server.not_offered import instead_of, nearest_path

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
# The codes of refusals that have only a status: those of Starlette and vLLM.
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
"""The first bytes of an error event in a stream."""
ANTHROPIC_SSE_ERROR = b"event: error\ndata: "
"""The first bytes of an error event in a stream of `/v1/messages`."""
RETRY_AFTER_SECONDS = "1"
INTERNAL_ERROR_MESSAGE = "The server failed to answer. Its log has the reason."


def error_type(status: int) -> str:
    """OpenAI's error `type` for a status."""
    return TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_body(
    status: int, message: str, code: AnyCode | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON body `{"error": {message, type, param, code}}`."""
    shown = code or CODES.get(status) or "error"
    return {"error": {"message": message, "type": error_type(status), "param": param, "code": shown}}


def error_headers(status: int) -> dict[str, str]:
    """The headers that say whether and when a client should retry."""
    if status in (429, 503):
        return {"retry-after": RETRY_AFTER_SECONDS}
    return {"x-should-retry": "false"}


def error_response(
    status: int, message: str, code: AnyCode | None = None, param: str | None = None
) -> JSONResponse:
    """The complete response of a refusal."""
    return JSONResponse(error_body(status, message, code, param), status, error_headers(status))


def status_of(error: type[errors.LoraComposeError]) -> int:
    """The status of the class or of its nearest parent in the table; 500 if neither is in it."""
    return next((STATUS[parent] for parent in error.__mro__ if parent in STATUS), 500)


def refusal(_: Request, error: Exception) -> JSONResponse:
    """The response to an error of this project, by its class."""
    assert isinstance(error, errors.LoraComposeError)
    response = error_response(status_of(type(error)), error.message, error.code, error.param)
    if isinstance(error, errors.QuotaExceeded):
        del response.headers["retry-after"]
        is_permanent = error.retry_after is None
        response.headers.update(
            {"x-should-retry": "false"}
            if is_permanent
            else {"retry-after": str(math.ceil(error.retry_after or 0))}
        )
    return response


def not_prepared(_: Request, error: Exception) -> JSONResponse:
    """The response if the engine could not build an adapter that was admitted. The log has the reason."""
    logger.error("the engine could not prepare an adapter: %s", error)
    return error_response(503, "The engine could not prepare this composition.", Code.COMPOSITION_UNAVAILABLE)


def engine_dead(_: Request, __: Exception) -> JSONResponse:
    """The response if the engine died while a composition was being prepared."""
    return error_response(503, "The engine died and is being restarted. Try again.", Code.ENGINE_UNAVAILABLE)


def http_error(request: Request, error: Exception) -> JSONResponse:
    """The response to an HTTPException of Starlette, such as 404 or 405."""
    assert isinstance(error, HTTPException)
    is_elsewhere = error.status_code == 405 and instead_of(request.scope["path"]) is not None
    if error.status_code == 404 or is_elsewhere:
        return not_found(request)
    detail = error.detail or HTTPStatus(error.status_code).phrase
    if error.status_code == 405:
        detail = f"This path supports only {_allowed(request)}."
    response = error_response(error.status_code, detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = _allowed(request)
    return response


def not_found(request: Request) -> JSONResponse:
    """The response for a path without a route. It says what to use instead, if that is known."""
    if instead := instead_of(request.scope["path"]):
        return error_response(404, f"This server does not offer this path. {instead}", Code.NOT_OFFERED)
    nearest = nearest_path(request.scope)
    hint = " GET /docs lists the paths." if nearest is None else f" Use {ascii(nearest)[1:-1]:.200}"
    return error_response(404, f"This path does not exist.{hint}")


def _allowed(request: Request) -> str:
    """All methods of the path. Starlette lists only those of one route."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    methods: set[str] = set()
    for route in routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def body_ended(_: Request, __: Exception) -> JSONResponse:
    """The response for the log and the metrics if the client disconnects within its body."""
    return error_response(400, "The connection ended before the whole request body had arrived.")


def unexpected(_: Request, __: Exception) -> JSONResponse:
    """The response to an unexpected exception. Its text is only in the log."""
    return error_response(500, INTERNAL_ERROR_MESSAGE)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    errors.LoraComposeError: refusal,
    AdapterNotPrepared: not_prepared,
    EngineDied: engine_dead,
    HTTPException: http_error,
    ClientDisconnect: body_ended,
    Exception: unexpected,
}
