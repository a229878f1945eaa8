"""Authentication, authorisation and quotas. Requests that no rule allows are refused here.

The decision uses `scope["path"]`, which is also the routed path, and the socket of the request. It never uses
a header such as Host.
"""

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_compose.adapters.errors import Code, QuotaExceeded, StorageUnavailable
from lora_compose.server.errors import error_body, error_headers, error_response, refusal
from lora_compose.server.not_offered import match_of
from lora_compose.server.paths import PROBES
from lora_compose.server.tenants.access import is_public, may
from lora_compose.server.tenants.audit import Audit, AuditEntry
from lora_compose.server.tenants.caller import Caller
from lora_compose.server.tenants.key import Key
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.quotas import QuotaLedger
from lora_compose.server.tenants.refusal_delay import RefusalDelay


@dataclass
class AuthContext:
    """The objects that the middleware uses."""

    keyring: Keyring
    audit: Audit
    admin_port: int | None = None
    """The only port for requests other than inference; None: one port for all requests."""
    ledger: QuotaLedger = field(default_factory=QuotaLedger)
    refusal_delay: RefusalDelay = field(default_factory=RefusalDelay)

    def authorize(self, key: Key | None, scope: Scope) -> Caller | Response:
        """The caller if the key may make this request, else the refusal."""
        method, path = scope.get("method", "GET"), scope["path"]
        if key is None:
            message = "A valid API key is required in the header Authorization: Bearer <key>, or x-api-key."
            headers = error_headers(401) | {"www-authenticate": "Bearer"}
            return JSONResponse(error_body(401, message), 401, headers)
        is_hidden = self._is_other_port(scope) and not is_public(method, path)
        if is_hidden and match_of(scope) != Match.NONE:
            return error_response(404, "This path does not exist on this port.")
        if not may(key, method, path) and match_of(scope) == Match.FULL:
            return error_response(
                403,
                f"This key has the role {key.role}, which may not {method} this path.",
                Code.PERMISSION_DENIED,
            )
        return Caller(key, self.ledger.account(key))

    def _is_other_port(self, scope: Scope) -> bool:
        """Whether administration has its own port and the request came through the main port."""
        _, port = scope.get("server") or ("", None)
        return self.admin_port is not None and self.admin_port != port


class AuthMiddleware:
    """Sets `request.state.caller`, and writes changes and refusals to the audit log.

    Routes write what they changed into `request.state.audited`, an AuditEntry.
    """

    def __init__(self, app: ASGIApp, auth: AuthContext) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        entry = scope.setdefault("state", {})["audited"] = AuditEntry()

        async def audited(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The line is written before the response, so that a client with the response finds it.
                self._auth.audit.record(scope, entry, message["status"])
            await send(message)

        try:
            entry.key = self._auth.keyring.owner(scope)
            await self._answer(entry.key, scope, receive, audited)
        except (StorageUnavailable, QuotaExceeded) as error:
            await self._refuse(entry.key, refusal(Request(scope), error), scope, receive, audited)
        finally:
            if not entry.is_recorded:
                self._auth.audit.record(scope, entry, 500)

    async def _answer(self, key: Key | None, scope: Scope, receive: Receive, send: Send) -> None:
        granted = self._auth.authorize(key, scope)
        if isinstance(granted, Response):
            await self._refuse(key, granted, scope, receive, send)
            return
        scope["state"]["caller"] = granted
        with granted.account.answering():
            await self._app(scope, receive, send)

    async def _refuse(
        self, key: Key | None, response: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await self._auth.refusal_delay.wait(key.id if key else None)
        await response(scope, receive, send)
