"""`/openapi.json`: the OpenAPI document of this server."""

import json

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def show(request: Request) -> Response:
    """`GET /openapi.json`: the OpenAPI document of this server."""
    return Response(await run_in_threadpool(_text, request.app), media_type="application/json")


def _text(app: Starlette) -> str:
    # Imported here, because it imports vLLM's request types.
    from lora_compose.server.api.openapi_document import document, documented_routes

    return json.dumps(document(documented_routes(app.routes)))


ROUTES = [Route("/openapi.json", show, methods=["GET"])]
