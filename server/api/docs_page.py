"""`/docs`: the routes of this server as one page without scripts or external files."""

from collections.abc import Mapping
from html import escape
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lora_compose.server.api.openapi import served_document

_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
td,th{{text-align:left;vertical-align:top;padding:.3em 1em .3em 0}}
code{{font-size:14px}}</style>
<h1>{title}</h1><p>{about}</p><p>The complete description, with every field and every error, is
<a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
<table><tr><th>Route<th>What it does<th>Roles<th>Statuses
"""


async def docs(request: Request) -> HTMLResponse:
    """`GET /docs`: a page that lists the routes of this server."""
    document = await run_in_threadpool(served_document, request.app)
    return HTMLResponse(page(document), headers=_HEADERS)


def page(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    head = _HEAD.format(title=escape(title), about=escape(info["description"]))
    rows = [
        _row(method, path, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
    ]
    return head + "\n".join(rows) + "</table></html>\n"


def _row(method: str, path: str, operation: Mapping[str, Any]) -> str:
    cells = (
        f"<code>{method.upper()} {escape(path)}</code>",
        escape(operation["summary"]),
        escape(", ".join(operation["x-roles"]) or "operator"),
        " ".join(sorted(operation["responses"])),
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


ROUTES = [Route("/docs", docs, methods=["GET"])]
