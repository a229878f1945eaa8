"""The door: who asks, what they may, how much; everything else is refused here, by default.

It decides by `scope["path"]`, the path that is routed, and by the socket a request came through, never by a
header such as Host.
"""

from dataclasses import dataclass, field

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import LoraComposeError, QuotaExceeded, StorageUnavailable
from server.audit import Audit
from server.errors import error_response, refusal
from server.paths import PROBES
from server.tenants.access import is_public, may
from server.tenants.caller import Caller
from server.tenants.flood import Flood
from server.tenants.key import Key
from server.tenants.keyring import Keyring
from server.tenants.ledger import Ledger


@dataclass
class Door:
    """What the middleware works with."""

    keyring: Keyring
    audit: Audit
    admin_port: int | None = None
    """Where everything but inference is, and nowhere else."""
    ledger: Ledger = field(default_factory=Ledger)
    flood: Flood = field(default_factory=Flood)


class DoorMiddleware:
    """Puts the caller into `request.state.caller`, and a line into the audit log of what changes anything."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        key, is_noted = None, False

        async def watched(message: Message) -> None:
            nonlocal is_noted
            if message["type"] == "http.response.start":
                # Before the client hears of it: whoever has the answer finds the line.
                self._door.audit.note(scope, key, message["status"])
                is_noted = True
            await send(message)

        scope.setdefault("state", {})["audited"] = State()
        try:
            key = self._door.keyring.owner(scope)
            await self._answer(key, scope, receive, watched)
        except (StorageUnavailable, QuotaExceeded) as error:
            await self._door.flood.slow_down(key.id if key else None)
            await _refused(error)(scope, receive, watched)
        finally:
            if not is_noted:
                self._door.audit.note(scope, key, 500)

    async def _answer(self, key: Key | None, scope: Scope, receive: Receive, send: Send) -> None:
        denied = self._denied(key, scope)
        if denied is not None or key is None:
            assert denied is not None
            await self._door.flood.slow_down(key.id if key else None)
            await denied(scope, receive, send)
            return
        account = self._door.ledger.account(key)
        scope["state"]["caller"] = Caller(key, account)
        with account.answering():
            await self._app(scope, receive, send)

    def _denied(self, key: Key | None, scope: Scope) -> Response | None:
        method, path = scope.get("method", "GET"), scope["path"]
        if key is None:
            response = error_response(401, "A valid API key is needed: Authorization: Bearer <key>.")
            response.headers["www-authenticate"] = "Bearer"
            return response
        ports = self._door.admin_port, (scope.get("server") or ("", None))[1]
        if ports[0] is not None and ports[0] != ports[1] and not is_public(method, path):
            return error_response(404, "Not Found")
        if not may(key, method, path):
            return error_response(
                403, f"This key (role {key.role}) may not {method} this path.", "permission_denied"
            )
        return None


def _refused(error: LoraComposeError) -> Response:
    return refusal(Request({"type": "http"}), error)
