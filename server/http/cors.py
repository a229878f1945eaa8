"""CORS: which web pages may use the server from a browser. Without --allowed-origins no page may.

It is around every route and before authentication, because a browser sends no key with the request that asks
for permission (a preflight), and reads an error only if it has the CORS headers.
"""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from typing_extensions import override

from lora_compose.server.errors import error_response

EXPOSED_HEADERS = ("retry-after", "www-authenticate", "x-lora-composition", "x-request-id", "x-should-retry")
"""The headers of our responses that a page may read besides those that browsers always show."""


class CorsMiddleware(CORSMiddleware):
    """Starlette's, with our error body."""

    @override
    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refusal = error_response(response.status_code, f"{bytes(response.body).decode()}.")
        own = {"content-length", "content-type"}
        refusal.headers.update({name: value for name, value in response.headers.items() if name not in own})
        return refusal
