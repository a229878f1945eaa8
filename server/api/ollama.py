"""`/api/tags`, `/api/show`, `/api/ps`, `/api/version`: the models and the version, for clients of Ollama."""

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.registry.store import Version
from lora_compose.server.api.requests import OllamaShow
from lora_compose.server.api.translated_responses import (
    OllamaDetails,
    OllamaModel,
    OllamaModels,
    OllamaRunning,
    OllamaShown,
)
from lora_compose.server.compositions.from_request import model_not_found
from lora_compose.server.http.body import read_object
from lora_compose.server.translations.ollama_request import LATEST, without_tag

if TYPE_CHECKING:
    from lora_compose.server.engine.frontend.engine import Engine

API_VERSION = "0.12.11"
"""The version of Ollama whose API these routes follow. Clients compare it with the version that they need."""


def greet(_: Request) -> PlainTextResponse:
    """`GET /`: show the playground to a browser, without a key. Other clients read that the server runs.

    Ollama's command asks for this before each of its own requests."""
    return PlainTextResponse(
        "lora-compose is running. A browser shows the playground at this address. "
        "GET /docs lists the routes.\n"
    )


def version(_: Request) -> JSONResponse:
    """`GET /api/version`: show the version of Ollama whose API this server follows."""
    return JSONResponse({"version": API_VERSION})


def list_tags(request: Request) -> JSONResponse:
    """`GET /api/tags`: list the base, the adapters and the saved compositions, for clients of Ollama."""
    state, caller = request.state, request.state.caller
    details = _details(state.engine)
    listed: OllamaModels = {
        "models": [
            _base(state.engine, details),
            *(_adapter(found, details) for found in state.registry.newest() if caller.sees(found.name)),
            *(
                _composition(name, composition, details)
                for name, composition in sorted(state.registry.compositions().items())
                if caller.sees_all(composition)
            ),
        ]
    }
    return JSONResponse(listed)


async def list_loaded(request: Request) -> JSONResponse:
    """`GET /api/ps`: list the base and the adapters that are in host memory, for clients of Ollama."""
    state, caller = request.state, request.state.caller
    ready = [part.spec.versions for part in state.residency.cache.entries() if part.is_ready]
    loaded = frozenset[str]().union(*ready)
    details = _details(state.engine)
    found = [one for one, _ in state.registry.catalogue() if one.id in loaded and caller.sees(one.name)]
    models = [_base(state.engine, details), *(_adapter(one, details, one.id) for one in found)]
    return JSONResponse({"models": [_running(model, state.engine.max_model_len) for model in models]})


async def show(request: Request) -> JSONResponse:
    """`POST /api/show`: show one model, for clients of Ollama."""
    fields = OllamaShow.read(await read_object(request, takes_forms=True))
    state, engine = request.state, request.state.engine
    name = without_tag(fields.model or fields.name or "")
    if not name:
        raise model_not_found(name)
    resolved = state.pipeline.resolve({"model": name}, state.caller)
    details = _details(engine)
    capabilities = ["completion", *["tools"] * engine.parses_tools, *["thinking"] * engine.parses_reasoning]
    shown: OllamaShown = {
        "modelfile": f"FROM {engine.base}\n",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": details,
        "model_info": {
            "general.architecture": details["family"],
            "general.basename": engine.base,
            f"{details['family']}.context_length": engine.max_model_len,
            "lora_compose.model": engine.base if resolved is None else resolved.name,
        },
        "capabilities": capabilities,
        "modified_at": _modified(engine)
        if resolved is None
        else max(_time(found.created_at) for _, found in resolved.versions),
    }
    return JSONResponse(shown)


def _base(engine: "Engine", details: OllamaDetails) -> OllamaModel:
    size = sum(path.stat().st_size for path in engine.model_dir.glob("*.safetensors"))
    return _model(engine.base, _modified(engine), size, _digest(str(engine.model_dir)), details)


def _adapter(found: Version, details: OllamaDetails, name: str | None = None) -> OllamaModel:
    created = _time(found.created_at)
    return _model(name or found.name, created, found.bytes, found.digest, {**details, "format": "lora"})


def _composition(name: str, composition: Composition, details: OllamaDetails) -> OllamaModel:
    return _model(name, _time(datetime.fromtimestamp(0, UTC)), 0, _digest(composition.canonical), details)


def _model(name: str, modified_at: str, size: int, digest: str, details: OllamaDetails) -> OllamaModel:
    tagged = name + LATEST
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": modified_at,
        "size": size,
        "digest": digest,
        "details": details,
    }


def _running(model: OllamaModel, context_length: int) -> OllamaRunning:
    return {**model, "size_vram": 0, "context_length": context_length}


def _details(engine: "Engine") -> OllamaDetails:
    config = json.loads((engine.model_dir / "config.json").read_bytes())
    family = str(config.get("model_type", "unknown"))
    return {
        "parent_model": engine.base,
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": str(engine.dtype).removeprefix("torch."),
    }


def _digest(text: str) -> str:
    """A digest for what has no files of its own in the registry."""
    return hashlib.sha256(text.encode()).hexdigest()


def _modified(engine: "Engine") -> str:
    return _time(datetime.fromtimestamp(engine.model_dir.stat().st_mtime, UTC))


def _time(moment: datetime) -> str:
    """RFC 3339 with a time zone, which Ollama's clients need."""
    return moment.astimezone(UTC).isoformat()


ROUTES = [
    Route("/", greet),
    Route("/api/version", version),
    Route("/api/tags", list_tags),
    Route("/api/ps", list_loaded),
    Route("/api/show", show, methods=["POST"]),
]
