"""vLLM's own load and unload routes, so that controllers written for it work here unchanged."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from adapters.composition_grammar import parse_reference
from adapters.errors import InvalidRequest
from adapters.names import check_name
from adapters.version_rows import no_adapter
from server.adapters_api import offered
from server.openapi.bodies import LoadAdapter, UnloadAdapter, fields_of
from server.registration import Offer
from server.request_body import check_fields, read_object


async def load(request: Request) -> PlainTextResponse:
    """`POST /v1/load_lora_adapter`: register a directory; the path is as in `POST /v1/adapters`."""
    body = await read_object(request)
    check_fields(body, fields_of(LoadAdapter))
    name, path = check_name(body.get("lora_name"), "lora_name"), body.get("lora_path")
    if not isinstance(path, str):
        raise InvalidRequest("invalid_source", "lora_path must be a directory.", "lora_path")
    if not isinstance(body.get("load_inplace", False), bool):
        raise InvalidRequest("invalid_request", "load_inplace must be true or false.", "load_inplace")
    offer = offered(request, Offer(name))
    version, _ = await run_in_threadpool(request.state.registration.from_path, offer, path)
    return PlainTextResponse(f"Success: LoRA adapter '{version.name}' added successfully.")


async def unload(request: Request) -> PlainTextResponse:
    """`POST /v1/unload_lora_adapter`: remove every version of it, or one as `name@2`."""
    body = await read_object(request)
    check_fields(body, fields_of(UnloadAdapter))
    name, ref = parse_reference(body.get("lora_name"), "lora_name")
    request.state.audited.adapter = name
    request.state.caller.require(name, no_adapter)
    await request.state.removal.remove(name, ref, cascade=False)
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


ROUTES = [
    Route("/v1/load_lora_adapter", load, methods=["POST"]),
    Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
]
