"""`/v1/models`: the base, the adapters and the saved compositions, on vLLM's model cards."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from adapters.composition import Composition
from adapters.registry import Registry
from adapters.store import Version
from server.asked import model_not_found
from server.engine.launch import Engine
from server.tenants.caller import Caller


def model_card(name: str, created: int, **fields: Any) -> dict[str, Any]:
    """vLLM's `ModelCard` fields."""
    return {"id": name, "object": "model", "created": created, "owned_by": "lora-compose", **fields}


def base_card(engine: Engine) -> dict[str, Any]:
    created = int(engine.model_dir.stat().st_mtime)
    return model_card(
        engine.base, created, root=str(engine.model_dir), parent=None, max_model_len=engine.max_model_len
    )


def adapter_card(version: Version, base: str) -> dict[str, Any]:
    created = int(version.created_at.timestamp())
    return model_card(version.name, created, root=version.id, parent=base, rank=version.rank)


def composition_card(name: str, composition: Composition, base: str) -> dict[str, Any]:
    return model_card(name, 0, root=composition.canonical, parent=base)


def cards(engine: Engine, registry: Registry, caller: Caller) -> list[dict[str, Any]]:
    """The base first, then adapters (their newest version) and saved compositions, each by name."""
    saved = sorted(registry.compositions().items())
    return [
        base_card(engine),
        *(adapter_card(v, engine.base) for v in registry.newest() if caller.sees(v.name)),
        *(composition_card(name, one, engine.base) for name, one in saved if caller.sees_all(one)),
    ]


def list_models(request: Request) -> JSONResponse:
    """`GET /v1/models`"""
    return JSONResponse({"object": "list", "data": _cards(request)})


def show_model(request: Request) -> JSONResponse:
    """`GET /v1/models/{id}`, where id may hold slashes, as a hub id does."""
    name = request.path_params["id"]
    for card in _cards(request):
        if card["id"] == name:
            return JSONResponse(card)
    raise model_not_found(name)


def _cards(request: Request) -> list[dict[str, Any]]:
    return cards(request.state.engine, request.state.registry, request.state.caller)


ROUTES = [Route("/v1/models", list_models), Route("/v1/models/{id:path}", show_model)]
