"""Removes the path under which a proxy publishes the server (--root-path).

The rest of the server sees one path only, so authentication and routing cannot disagree about it. A request
without that path is answered too: health probes do not come through the proxy.
"""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPathMiddleware:
    """`root_path` begins with "/" and does not end with it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{self._root_path}/"):
            path = scope["path"].removeprefix(self._root_path)
            raw = scope.get("raw_path", b"").removeprefix(self._root_path.encode())
            scope = {**scope, "path": path, "raw_path": raw}
        await self._app(scope, receive, send)
