"""vLLM's routes for loading and unloading adapters, so that controllers for vLLM work unchanged."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lora_compose.adapters.registry.versions import no_adapter
from lora_compose.server.api.adapters import authorized_offer
from lora_compose.server.api.requests import LoadAdapter, UnloadAdapter
from lora_compose.server.http.body import read_object
from lora_compose.server.registration import Offer


async def load(request: Request) -> PlainTextResponse:
    """`POST /v1/load_lora_adapter`: register a directory. The path is as in `POST /v1/adapters`."""
    fields = LoadAdapter.read(await read_object(request))
    offer = authorized_offer(request, Offer(fields.lora_name, ttl_seconds=fields.ttl_seconds))
    load_path = request.state.registration.from_path
    version, created = await run_in_threadpool(load_path, offer, fields.lora_path)
    await request.state.keeper.registered(version if created and fields.load_inplace else None)
    return PlainTextResponse(f"Success: LoRA adapter '{version.name}' added successfully.")


async def unload(request: Request) -> PlainTextResponse:
    """`POST /v1/unload_lora_adapter`: remove all versions of an adapter, or one with `name@2`."""
    name, ref = UnloadAdapter.read(await read_object(request)).lora_name
    request.state.audited.adapter = name
    request.state.caller.require(name, no_adapter)
    await request.state.removal.remove(name, ref, cascade=False)
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


ROUTES = [
    Route("/v1/load_lora_adapter", load, methods=["POST"]),
    Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
]
