"""`/v1/models`: the base, the adapters and the saved compositions, in the shape of vLLM's model cards."""

from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.errors import InvalidRequest, NotFound, Unservable
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.server.api.responses import ModelCard, ModelList
from lora_compose.server.compositions.from_request import model_not_found
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.pipeline import CompositionPipeline
from lora_compose.server.tenants.caller import Caller

if TYPE_CHECKING:
    from lora_compose.server.engine.frontend.engine import Engine


def model_card(name: str, created: int, root: str, parent: str | None) -> ModelCard:
    """The fields that all model cards have."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "lora-compose",
        "root": root,
        "parent": parent,
    }


def base_card(engine: "Engine", name: str) -> ModelCard:
    """The card of the base under one of its names."""
    created = int(engine.model_dir.stat().st_mtime)
    card = model_card(name, created, str(engine.model_dir), None)
    return {**card, "max_model_len": engine.max_model_len}


def adapter_card(version: Version, base: str) -> ModelCard:
    created = int(version.created_at.timestamp())
    return {**model_card(version.name, created, version.id, base), "rank": version.rank}


def composition_card(name: str, composition: Composition, base: str) -> ModelCard:
    return model_card(name, 0, composition.canonical, base)


def cards(engine: "Engine", registry: Registry, resolver: Resolver, caller: Caller) -> list[ModelCard]:
    """The base, then the newest versions of adapters, then saved compositions, each ordered by name.

    Versions that were registered for another base are left out, and compositions that have one."""
    saved = sorted(registry.compositions().items())
    return [
        *(base_card(engine, name) for name in (engine.base, *engine.other_names)),
        *(
            adapter_card(v, engine.base)
            for v in registry.newest(resolver.fingerprints)
            if caller.sees(v.name)
        ),
        *(
            composition_card(name, composition, engine.base)
            for name, composition in saved
            if caller.sees_all(composition) and resolver.is_for_this_base(composition)
        ),
    ]


def list_models(request: Request) -> JSONResponse:
    """`GET /v1/models`: list the values that `model` may have: the base, adapters and saved compositions."""
    listed: ModelList = {"object": "list", "data": _cards(request)}
    return JSONResponse(listed)


def show_model(request: Request) -> JSONResponse:
    """`GET /v1/models/{id}`: show one model: any value that `model` may have in a request or a response."""
    name, engine = request.path_params["id"], request.state.engine
    registry, caller = request.state.registry, request.state.caller
    if name == engine.base or name in engine.other_names:
        return JSONResponse(base_card(engine, name))
    with suppress(NotFound):
        caller.require(name, model_not_found)
        bases = request.state.resolver.fingerprints
        served = [version for version in registry.versions(name) if version.is_for(bases)]
        if not served:
            raise model_not_found(name)
        return JSONResponse(adapter_card(served[-1], engine.base))
    with suppress(NotFound):
        composition = registry.composition(name)
        if caller.sees_all(composition) and request.state.resolver.is_for_this_base(composition):
            return JSONResponse(composition_card(name, composition, engine.base))
    return JSONResponse(_composed_card(name, request.state.pipeline, caller))


def _composed_card(name: str, pipeline: CompositionPipeline, caller: Caller) -> ModelCard:
    """The card of a composition written as text. What cannot be served is not a model."""
    try:
        resolved = pipeline.resolve({"model": name}, caller)
    except (InvalidRequest, NotFound, Unservable) as error:
        raise model_not_found(name) from error
    if resolved is None:
        raise model_not_found(name)
    _, version = resolved.versions[0]
    if resolved.name == version.id:
        return {**adapter_card(version, pipeline.base), "id": name}
    return composition_card(name, resolved.composition, pipeline.base)


def _cards(request: Request) -> list[ModelCard]:
    state = request.state
    return cards(state.engine, state.registry, state.resolver, state.caller)


ROUTES = [Route("/v1/models", list_models), Route("/v1/models/{id:path}", show_model)]
