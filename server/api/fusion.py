"""`/v1/fusion`: fuse a composition into the base weights, show what is fused, and restore the base."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.server.api.responses import FusionObject
from lora_compose.server.compositions.from_request import ComposedModel
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.http.body import read_object
from lora_compose.server.pipeline import CompositionPipeline


def fusion_object(fusion: FusionSwitch) -> FusionObject:
    """The state of fusion and the durations of the last switch as JSON."""
    fused, last = fusion.fused, fusion.last
    return {
        "object": "fusion",
        "state": fusion.state,
        "model": fused.name if fused else None,
        "progress": fusion.progress,
        "last_switch": {"seconds": last.seconds, "stalled_seconds": last.stalled_seconds} if last else None,
    }


def show(request: Request) -> JSONResponse:
    """`GET /v1/fusion`: show which composition is fused into the base weights."""
    return JSONResponse(fusion_object(request.state.fusion))


async def fuse(request: Request) -> JSONResponse:
    """`PUT /v1/fusion`: fuse a composition into the base weights. The response comes when it is fused.

    The next start of the server fuses it again."""
    fields = ComposedModel.read(await read_object(request))
    pipeline: CompositionPipeline = request.state.pipeline
    resolved = pipeline.resolve(fields)
    if resolved is None:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION, "Name at least one adapter to fuse in model or adapters.", "model"
        )
    await pipeline.fuse(resolved)
    await run_in_threadpool(request.state.registry.kept.fuse, resolved.name)
    return JSONResponse(fusion_object(pipeline.fusion))


async def restore(request: Request) -> JSONResponse:
    """`DELETE /v1/fusion`: restore the base weights, bit for bit."""
    await request.state.fusion.restore()
    await run_in_threadpool(request.state.registry.kept.fuse, None)
    return JSONResponse(fusion_object(request.state.fusion))


ROUTES = [
    Route("/v1/fusion", show, methods=["GET"]),
    Route("/v1/fusion", fuse, methods=["PUT"]),
    Route("/v1/fusion", restore, methods=["DELETE"]),
]
