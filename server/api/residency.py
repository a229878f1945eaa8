"""`/v1/residency`: show which adapters are in memory, as the scheduler and the workers report; pin them."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.registry.store import Version
from lora_compose.server.api.responses import PinObject, PreparedPart, ResidencyObject
from lora_compose.server.compositions.merges import servable_of
from lora_compose.server.residency.cache import CacheEntry


async def show(request: Request) -> JSONResponse:
    """`GET /v1/residency`: show which adapters are in host memory and in slots."""
    state = request.state
    workers = await state.engine.resident()
    residency, fused = state.residency, state.fusion.fused
    runtime_weights = state.engine.runtime_weights
    answer: ResidencyObject = {
        "object": "residency",
        "runtime_weights": runtime_weights,
        "host": {
            "capacity": residency.cache.capacity,
            "adapters": [
                _part(part, residency.cache.is_pinned(part), workers, runtime_weights)
                for part in residency.cache.entries()
            ],
        },
        "active": {"slots": residency.slots, "compositions": residency.active()},
        "fused": fused and fused.name,
        "queued": residency.queued,
    }
    return JSONResponse(answer)


def _part(
    part: CacheEntry, pinned: bool, workers: list[dict[str, Any]], runtime_weights: bool
) -> PreparedPart:
    """One build as JSON. `workers` counts the workers that have it, `bytes` is its size in all of them."""
    key = part.spec.key if runtime_weights else str(part.lora_int_id)
    sizes = [worker["bytes"][key] for worker in workers if key in worker["bytes"]]
    return {
        "id": part.spec.label,
        "state": "prepared" if part.is_ready else "preparing",
        "requests": part.users,
        "pinned": pinned,
        "workers": len(sizes),
        "bytes": sum(sizes),
        "prepare_seconds": part.prepared.result() if part.is_ready else None,
    }


async def pin(request: Request) -> JSONResponse:
    """`PUT /v1/adapters/{name}[@ref]/pin`: load an adapter into host memory and keep it there.

    The next start of the server pins it again."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    version = request.state.resolver.version(name, ref)
    with request.state.residency.using(frozenset({version.digest})):
        await request.state.residency.pin(servable_of(version))
    await run_in_threadpool(request.state.registry.kept.pin, version)
    pinned: PinObject = {"object": "adapter.pin", "id": version.id, "pinned": True}
    return JSONResponse(pinned)


async def unpin(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}[@ref]/pin`: unpin an adapter, so that it may be evicted again."""
    version = _version(request)
    request.state.residency.unpin(frozenset({version.id}))
    await run_in_threadpool(request.state.registry.kept.unpin, version)
    return Response(status_code=204)


def _version(request: Request) -> Version:
    name, ref = parse_reference(request.path_params["reference"], "name")
    version: Version = request.state.registry.resolve(name, ref, request.state.resolver.fingerprints)
    return version


ROUTES = [
    Route("/v1/residency", show, methods=["GET"]),
    Route("/v1/adapters/{reference}/pin", pin, methods=["PUT"]),
    Route("/v1/adapters/{reference}/pin", unpin, methods=["DELETE"]),
]
