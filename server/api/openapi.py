"""`/openapi.json`: the OpenAPI document of this server."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def show(request: Request) -> Response:
    """`GET /openapi.json`: the OpenAPI document of this server."""
    text = await run_in_threadpool(lambda: json.dumps(served_document(request.app)))
    return Response(text, media_type="application/json")


def served_document(app: Starlette) -> dict[str, Any]:
    """The OpenAPI document of the app. The first call takes a second."""
    # Imported here, because it imports vLLM's request types.
    from lora_compose.server.api.openapi_document import document, documented_routes

    return document(documented_routes(app.routes))


ROUTES = [Route("/openapi.json", show, methods=["GET"])]
