"""Liveness, readiness and metrics."""

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
    """Liveness: the process answers."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> JSONResponse:
    """Readiness: the engine is alive and the registry is open."""
    request.state.fusion.check(None)
    if request.state.watchdog.is_stuck:
        return error_response(503, "The engine does not respond.", Code.ENGINE_STUCK)
    if await request.state.engine.is_healthy():
        return JSONResponse({"status": "ready"})
    return error_response(503, "The engine is not running.", Code.ENGINE_DEAD)


async def _is_ready(request: Request) -> bool:
    """Whether `/readyz` would answer 200."""
    try:
        return (await readyz(request)).status_code == 200
    except LoraComposeError:
        return False


def _free_bytes(directory: Path) -> int:
    """Free bytes on the disk; 0 if the directory is missing or the disk does not respond."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


async def health(request: Request) -> Response:
    """vLLM's health check: an empty response with status 200 or 503."""
    return Response(status_code=200 if await request.state.engine.is_healthy() else 503)


async def ping(request: Request) -> Response:
    """SageMaker's health check: the same as `/health`."""
    return await health(request)


async def metrics(request: Request) -> Response:
    """Our metrics and then vLLM's, in the Prometheus text format."""
    ours = request.state.metrics
    ours.ready.set(await _is_ready(request))
    ours.free_bytes.set(await run_in_threadpool(_free_bytes, request.state.registry.staging_dir))
    text = ours.text(request.state.engine.metrics_registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


ROUTES = [
    Route("/livez", livez),
    Route("/readyz", readyz),
    Route("/health", health),
    Route("/ping", ping, methods=["GET", "POST"]),
    Route("/metrics", metrics),
]
