"""Serves the files of the page. It needs no engine and no key: the files are the same for everybody.

The page is at `/`, for requests whose header `Accept` names `text/html`. Its files are below
`/playground/<digest>/`. The digest is that of all files together, so a browser may keep them without asking
again, and never combines the files of two versions.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lora_compose.server.paths import PLAYGROUND

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
FILES_MARK = "{files}"
"""What the page has in place of the folder of its files."""
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The files that are served. Licences and checksums in `static/` are not."""
IMMUTABLE = "public, max-age=31536000, immutable"
POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))
"""The page may load its own scripts and styles and call its own server. Text can never become a script."""
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class StaticFile:
    """A file with the headers of its response, plain and compressed."""

    body: bytes
    compressed: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, suffix: str, cache_control: str, vary: str) -> "StaticFile":
        headers = {
            **SECURITY_HEADERS,
            "cache-control": cache_control,
            "content-type": MEDIA_TYPES[suffix],
            "etag": f'W/"{hashlib.sha256(body).hexdigest()[:32]}"',
            "vary": vary,
        }
        return cls(body, gzip.compress(body, mtime=0), headers)

    def response(self, request: Headers) -> Response:
        """The file, or 304 if the browser has it already."""
        if request.get("if-none-match") == self.headers["etag"]:
            return Response(status_code=304, headers=dict(self.headers))
        if "gzip" in request.get("accept-encoding", ""):
            return Response(self.compressed, headers={**self.headers, "content-encoding": "gzip"})
        return Response(self.body, headers=dict(self.headers))


@cache
def files() -> Mapping[str, StaticFile]:
    """Every file by its path on this server. `/` is the page."""
    found = sorted(path for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES)
    bodies = {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in found}
    digest = hashlib.sha256()
    for name, body in bodies.items():
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(body).digest())
    folder = f"{PLAYGROUND[1:]}{digest.hexdigest()[:16]}"
    page = bodies.pop(PAGE).replace(FILES_MARK.encode(), folder.encode())
    return {
        "/": StaticFile.of(page, ".html", "no-cache", "accept, accept-encoding"),
        **{
            f"/{folder}/{name}": StaticFile.of(body, Path(name).suffix, IMMUTABLE, "accept-encoding")
            for name, body in bodies.items()
        },
    }


def is_playground(scope: Scope) -> bool:
    """Whether the request is for one of the files. Nothing else is answered without a key."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    return (path != "/" or _wants_html(Headers(scope=scope))) and path in files()


def _wants_html(headers: Headers) -> bool:
    """Whether `Accept` names HTML. Browsers do; `*/*`, which other clients send, does not."""
    return "text/html" in (part.partition(";")[0].strip() for part in headers.get("accept", "").split(","))


async def playground(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for which `is_playground` is true."""
    await files()[scope["path"]].response(Headers(scope=scope))(scope, receive, send)
