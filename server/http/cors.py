"""CORS: which web pages may use the server from a browser. Without --allowed-origins no page may.

It is around every route and before authentication, because a browser sends no key with the request that asks
for permission (a preflight), and reads an error only if it has the CORS headers.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message
from typing_extensions import override

from lora_compose.server.errors import error_response
from lora_compose.server.options.http_options import HttpOptions

EXPOSED_HEADERS = ("retry-after", "www-authenticate", "x-lora-composition", "x-request-id", "x-should-retry")
"""The headers of our responses that a page may read besides those that browsers always show."""
Cors = Callable[[Headers], Mapping[str, str]]
"""The CORS headers of a response, by the headers of its request."""


class CorsMiddleware(CORSMiddleware):
    """Starlette's, with our error body."""

    @classmethod
    def around(cls, app: ASGIApp, options: HttpOptions) -> "CorsMiddleware":
        """`app` with the CORS headers that the options ask for."""
        return cls(
            app,
            allow_origins=options.allowed_origins,
            allow_methods=[method.upper() for method in options.allowed_methods],
            allow_headers=options.allowed_headers,
            allow_credentials=options.allow_credentials,
            expose_headers=EXPOSED_HEADERS,
            allow_private_network=True,  # Chromium asks for it before a request to a private address
        )

    def headers_of(self, request_headers: Headers) -> Mapping[str, str]:
        """The headers that the middleware adds to a response.

        Starlette adds them in the coroutine that sends the response. It waits for nothing else, so it ends
        in one step."""
        message: Message = {"type": "http.response.start", "headers": []}
        with suppress(StopIteration):
            self.send(message, _not_sent, request_headers).send(None)
        return Headers(raw=message["headers"])

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refusal = error_response(response.status_code, f"{bytes(response.body).decode()}.")
        own = {"content-length", "content-type"}
        refusal.headers.update({name: value for name, value in response.headers.items() if name not in own})
        return refusal


async def _not_sent(_: Message) -> None: ...


def no_cors(_: Headers) -> Mapping[str, str]:
    """No headers: no page of another origin may use the server."""
    return {}


def cors_of(options: HttpOptions) -> Cors:
    """For responses that are made outside the app."""
    if not options.allowed_origins:
        return no_cors
    return CorsMiddleware.around(error_response(404, ""), options).headers_of
