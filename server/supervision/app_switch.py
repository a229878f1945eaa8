"""The ASGI app that uvicorn serves: it forwards to the running engine's app, and without one answers 503.

It serves the files of the playground itself: they need neither an engine nor a key.
"""

import json

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_compose.adapters.errors import Code
from lora_compose.server.errors import error_headers, error_response
from lora_compose.server.http.access_log import EXPECTED
from lora_compose.server.playground.site import is_playground, playground
from lora_compose.server.state import AppState
from lora_compose.server.translations.client_shape import in_client_shape


class AppSwitch:
    """`state` belongs to the engine that runs now. It is None while no engine runs."""

    def __init__(self) -> None:
        self.state: AppState | None = None
        self._app: ASGIApp | None = None
        self._was_open = False

    def open(self, app: ASGIApp, state: AppState) -> None:
        """Forward new requests to `app`, with `state` in `request.state`."""
        self._app, self.state, self._was_open = app, state, True

    def close(self) -> None:
        """Answer new requests with 503, except `/livez`. Requests in flight go on to their end."""
        self._app = self.state = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if is_playground(scope):
            await playground(scope, receive, send)
            return
        send = in_client_shape(scope, send)
        if self._app is None:
            await _without_engine(scope, self._was_open)(scope, receive, send)
        else:
            # The scope is changed, not copied: the middleware around this app reads the route from it.
            scope["state"] = {**scope.get("state", {}), **(self.state or {})}
            await self._app(scope, receive, send)


def _without_engine(scope: Scope, was_open: bool) -> JSONResponse:
    """The answer before the first engine serves, and between one engine and the next."""
    if scope["path"] == "/livez":
        return JSONResponse({"status": "alive"})
    if was_open:
        status = "restarting"
        refusal = error_response(503, "The engine is restarting.", Code.ENGINE_UNAVAILABLE)
    else:
        status = "loading"
        refusal = error_response(503, "The model is loading.", Code.ENGINE_LOADING)
        scope.setdefault("state", {})[EXPECTED] = True
    if scope["path"] != "/readyz":
        return refusal
    return JSONResponse({"status": status, **json.loads(bytes(refusal.body))}, 503, error_headers(503))


async def _lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
