"""Liveness, readiness and metrics: whether to send traffic here, and what became of it."""

import shutil
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lora_compose.adapters.errors import Code, LoraComposeError
from lora_compose.server.errors import error_response


async def livez(_: Request) -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> JSONResponse:
    """The engine lives and the registry is open: send traffic."""
    request.state.fusion.check(None)
    if request.state.pulse.is_stuck:
        return error_response(503, "The engine gives no sign of life.", Code.ENGINE_STUCK)
    if await request.state.engine.is_healthy():
        return JSONResponse({"status": "ready"})
    return error_response(503, "The engine is not running.", Code.ENGINE_DEAD)


async def _is_ready(request: Request) -> bool:
    """What `/readyz` would say."""
    try:
        return (await readyz(request)).status_code == 200
    except LoraComposeError:
        return False


def _free_bytes(directory: Path) -> int:
    """0 where the directory is gone or its disk does not answer: nothing can be stored there."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


async def health(request: Request) -> Response:
    """vLLM's own: an empty 200, or 503."""
    return Response(status_code=200 if await request.state.engine.is_healthy() else 503)


async def metrics(request: Request) -> Response:
    """Prometheus exposition: ours, then vLLM's."""
    ours = request.state.metrics
    ours.ready.set(await _is_ready(request))
    ours.free_bytes.set(await run_in_threadpool(_free_bytes, request.state.registry.staging_dir))
    text = ours.text(request.state.engine.metrics_registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


ROUTES = [
    Route("/livez", livez),
    Route("/readyz", readyz),
    Route("/health", health),
    Route("/metrics", metrics),
]
