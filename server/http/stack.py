"""What every request passes before the app that answers it, from the options of the HTTP server."""

from inspect import isclass

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_compose.server.errors import error_response, unexpected
from lora_compose.server.http.access_log import RequestLogMiddleware
from lora_compose.server.http.cors import CorsMiddleware
from lora_compose.server.http.request_id import RequestIdMiddleware
from lora_compose.server.http.root_path import RootPathMiddleware
from lora_compose.server.options.http_options import HttpOptions, middleware_at

DOCUMENTATION = frozenset({"/docs", "/openapi.json"})


def around(app: ASGIApp, options: HttpOptions) -> ASGIApp:
    """`app` with request ids, the root path, the log of requests, CORS and the user's own middleware.

    As in vLLM, the user's last middleware is the outermost of them, and all are before authentication."""
    if options.disable_fastapi_docs:
        app = _without(app, DOCUMENTATION)
    for path in options.middleware:
        found = middleware_at(path)
        is_class = isclass(found)
        app = found(app) if is_class else BaseHTTPMiddleware(app, dispatch=found)
    if options.middleware:
        app = ServerErrorMiddleware(app, handler=unexpected)
    if options.allowed_origins:
        app = CorsMiddleware.around(app, options)
    if not options.disable_uvicorn_access_log:
        app = RequestLogMiddleware(app, frozenset(options.disable_access_log_for_endpoints))
    if options.root_path:
        app = RootPathMiddleware(app, options.root_path)
    return RequestIdMiddleware(app)


def _without(app: ASGIApp, paths: frozenset[str]) -> ASGIApp:
    """`app` as if it had no routes for these paths."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        is_hidden = scope["type"] == "http" and scope["path"] in paths
        await (error_response(404, "Not Found") if is_hidden else app)(scope, receive, send)

    return answer
