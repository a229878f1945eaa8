"""`/openapi.json`: what this server has, for people's tools."""

import json

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def show(request: Request) -> Response:
    """`GET /openapi.json`: this very document."""
    return Response(await run_in_threadpool(_text, request.app), media_type="application/json")


def _text(app: Starlette) -> str:
    from lora_compose.server.api.openapi_document import described, document  # it takes vLLM's request types

    return json.dumps(document(described(app.routes)))


ROUTES = [Route("/openapi.json", show, methods=["GET"])]
