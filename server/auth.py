"""API keys: with any configured, every path but the probes wants `Authorization: Bearer <key>`.

A running benchmark has a key of its own (see `traffic`)."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import error_response
from server.traffic import Traffic

OPEN_PATHS = frozenset({"/livez", "/readyz", "/health"})


class AuthMiddleware:
    """Decides by `scope["path"]`, the path that is routed, never by a header such as Host."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._allows(scope):
            await self._app(scope, receive, send)
            return
        response = error_response(401, "A valid API key is needed: Authorization: Bearer <key>.")
        response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        digest = hashlib.sha256(key).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return (scheme.lower() == b"bearer" and any(matches)) or self._traffic.is_own(scope)
