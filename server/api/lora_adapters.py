"""`/lora-adapters`: the adapters with numbers, for clients of llama.cpp."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lora_compose.adapters.errors import Code, NotFound
from lora_compose.adapters.registry.store import Version
from lora_compose.server.api.translated_responses import NumberedAdapter
from lora_compose.server.compositions.numbers import number_of


def list_numbered(request: Request) -> JSONResponse:
    """`GET /lora-adapters`: list the newest version of each adapter with a number for the field `lora`."""
    registry, caller = request.state.registry, request.state.caller
    return JSONResponse([_numbered(version) for version in registry.newest() if caller.sees(version.name)])


def _numbered(version: Version) -> NumberedAdapter:
    """`scale` is 0, because a request without `lora` uses no adapter."""
    return {
        "id": number_of(version),
        "path": version.id,
        "scale": 0.0,
        "task_name": version.name,
        "prompt_prefix": "",
    }


def refuse_scales(_: Request) -> None:
    """`POST /lora-adapters`: refused, because it would change the answers to all other clients."""
    raise NotFound(
        Code.NOT_OFFERED,
        "This server has no adapters that are used without being named. Send lora in each request, as in "
        '"lora": [{"id": 1, "scale": 0.5}].',
    )


ROUTES = [
    Route("/lora-adapters", list_numbered),
    Route("/lora-adapters", refuse_scales, methods=["POST"]),
]
