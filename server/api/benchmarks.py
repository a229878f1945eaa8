"""`/v1/benchmarks`: start a benchmark of this server, follow it, and fetch its report and result."""

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from lora_compose.server.api.responses import BenchmarkList, BenchmarkObject
from lora_compose.server.benchmarks.plan import read_plan
from lora_compose.server.benchmarks.runs import REPORT, RESULT, BenchmarkRun
from lora_compose.server.http.body import read_object

# The page has the same origin as the API, so its scripts may draw but not send requests.
REPORT_HEADERS = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; font-src data:",
    "x-content-type-options": "nosniff",
}


def benchmark_object(run: BenchmarkRun) -> BenchmarkObject:
    """One run as JSON."""
    return {
        "object": "benchmark",
        "id": run.id,
        "created": run.created,
        "plan": run.plan,
        "status": run.status,
        "progress": run.progress,
        "error": run.error,
    }


async def start(request: Request) -> JSONResponse:
    """`POST /v1/benchmarks`: start a benchmark. 409 if one is running, 503 if the server is busy."""
    body, state = await read_object(request), request.state
    longest = state.engine.max_model_len
    plan = await run_in_threadpool(read_plan, body, state.registry, state.resolver, longest)
    return JSONResponse(benchmark_object(state.benchmarks.start(plan, _own_url(request))), 201)


def _own_url(request: Request) -> str:
    """The address of the socket that this request came through. A header could name another server."""
    host, port = request.scope["server"]
    if port is None:
        raise HTTPException(501, "A server on a Unix socket (--uds) does not run benchmarks.")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def list_runs(request: Request) -> JSONResponse:
    """`GET /v1/benchmarks`: list all benchmarks, the newest first."""
    data = [benchmark_object(run) for run in request.state.benchmarks.runs()]
    listed: BenchmarkList = {"object": "list", "data": data}
    return JSONResponse(listed)


async def show(request: Request) -> JSONResponse:
    """`GET /v1/benchmarks/{id}`: show the progress of a benchmark, or how it ended."""
    return JSONResponse(benchmark_object(request.state.benchmarks.run(request.path_params["id"])))


async def cancel(request: Request) -> JSONResponse:
    """`DELETE /v1/benchmarks/{id}`: cancel a benchmark. The response comes when it has ended."""
    return JSONResponse(benchmark_object(await request.state.benchmarks.cancel(request.path_params["id"])))


async def report(request: Request) -> FileResponse:
    """`GET /v1/benchmarks/{id}/report`: the report as an HTML page."""
    path = request.state.benchmarks.file(request.path_params["id"], REPORT)
    return FileResponse(path, media_type="text/html", headers=REPORT_HEADERS)


async def result(request: Request) -> FileResponse:
    """`GET /v1/benchmarks/{id}/result`: all measurements, including every request."""
    path = request.state.benchmarks.file(request.path_params["id"], RESULT)
    return FileResponse(path, media_type="application/json")


ROUTES = [
    Route("/v1/benchmarks", start, methods=["POST"]),
    Route("/v1/benchmarks", list_runs, methods=["GET"]),
    Route("/v1/benchmarks/{id}", show, methods=["GET"]),
    Route("/v1/benchmarks/{id}", cancel, methods=["DELETE"]),
    Route("/v1/benchmarks/{id}/report", report, methods=["GET"]),
    Route("/v1/benchmarks/{id}/result", result, methods=["GET"]),
]
