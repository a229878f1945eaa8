"""`/info`: the base and the limits of this server, in the shape of TGI and LoRAX."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lora_compose.server.api.translated_responses import TgiInfo
from lora_compose.server.versions import DISTRIBUTION, version_of


def info(request: Request) -> JSONResponse:
    """`GET /info`: show the base and the limits, for clients of TGI and LoRAX."""
    engine = request.state.engine
    shown: TgiInfo = {
        "model_id": engine.base,
        "model_sha": None,
        "model_dtype": str(engine.dtype),
        "model_pipeline_tag": "text-generation",
        "max_best_of": 1,
        "max_input_length": engine.max_model_len - 1,
        "max_input_tokens": engine.max_model_len - 1,
        "max_total_tokens": engine.max_model_len,
        "version": version_of(DISTRIBUTION) or "",
    }
    return JSONResponse(shown)


ROUTES = [Route("/info", info)]
