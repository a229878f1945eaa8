"""What vLLM says about itself: its version, its load and its tokenizer."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lora_compose.server.api.forwarding import answer_by_vllm
from lora_compose.server.api.responses import LoadObject, VersionObject
from lora_compose.server.generation.offered import require_offered
from lora_compose.server.versions import DISTRIBUTION, version_of, vllm_builds


def version(_: Request) -> JSONResponse:
    """`GET /version`: the version of vLLM, as vLLM shows it, and of this server."""
    shown: VersionObject = {
        "version": next(iter(vllm_builds().values()), ""),
        "lora_compose_version": version_of(DISTRIBUTION) or "",
    }
    return JSONResponse(shown)


def load(request: Request) -> JSONResponse:
    """`GET /load`: the number of requests with a composition that are being answered."""
    (family,) = request.state.metrics.in_flight.collect()
    shown: LoadObject = {"server_load": int(family.samples[0].value)}
    return JSONResponse(shown)


class TokenizerInfo:
    """`GET /tokenizer_info`, answered by vLLM if it was started with that option."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_offered(scope["path"], scope["state"]["engine"].paths)
        await answer_by_vllm(scope, receive, send)


ROUTES = [
    Route("/version", version, methods=["GET"]),
    Route("/load", load, methods=["GET"]),
    Route("/tokenizer_info", TokenizerInfo(), methods=["GET"]),
]
