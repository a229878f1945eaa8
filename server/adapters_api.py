"""`/v1/adapters`: register, list, inspect and remove adapters while the server runs; move their aliases."""

from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.composition_grammar import parse_reference
from adapters.errors import InvalidRequest
from adapters.lineage import check_lineage
from adapters.names import check_alias, check_name
from adapters.registry import Registry
from adapters.store import CONFIG_FILE, WEIGHTS_FILE, Version
from adapters.version_rows import no_adapter
from server.merges import servable_of
from server.registration import Offer
from server.request_body import read_object
from server.upload import read_upload, uploaded_file

JSON_FIELDS = {"name", "path", "hf", "alias", "digest", "lineage"}


def adapter_object(version: Version, registry: Registry, base: str) -> dict[str, Any]:
    """One version as JSON."""
    aliases = registry.aliases(version.name)
    return {
        "object": "adapter",
        "id": version.id,
        "name": version.name,
        "version": version.number,
        "digest": version.digest,
        "rank": version.rank,
        "bytes": version.bytes,
        "created_at": int(version.created_at.timestamp()),
        "source": version.source,
        "base": base,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version.number),
        "parameters": version.parameters,
        "coverage": version.coverage,
        "warnings": list(version.warnings),
        "lineage": version.lineage.get("training", {}),
    }


async def register(request: Request) -> JSONResponse:
    """`POST /v1/adapters`: 201 with a new version, 200 where these bytes are registered already."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        version, created = await _register_upload(request)
    else:
        version, created = await _register_reference(await read_object(request), request)
    request.state.audited.digest, request.state.audited.version = version.digest, version.number
    request.state.residency.prefetch(servable_of(version))
    return _answer(request, version, 201 if created else 200)


async def _register_upload(request: Request) -> tuple[Version, bool]:
    registration = request.state.registration
    async with read_upload(request, registration.limits.max_bytes) as (offer, form):
        offer = offered(request, offer)
        files = [uploaded_file(form, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
        return await run_in_threadpool(registration.from_files, offer, *files)


async def _register_reference(body: dict[str, Any], request: Request) -> tuple[Version, bool]:
    for field in body.keys() - JSON_FIELDS:
        raise InvalidRequest("unknown_field", f"There is no field {field!r:.80} here.", field[:80])
    told = check_lineage(body["lineage"]) if "lineage" in body else None
    offer = offered(
        request, Offer(check_name(body.get("name")), body.get("alias"), _text(body, "digest"), told)
    )
    path, hub = _text(body, "path"), _text(body, "hf")
    if (path is None) == (hub is None):
        raise InvalidRequest("invalid_source", "Give either a path or an hf reference.", "path")
    registration = request.state.registration
    if path is not None:
        return await run_in_threadpool(registration.from_path, offer, path)
    return await run_in_threadpool(registration.from_hub, offer, hub)


def offered(request: Request, offer: Offer) -> Offer:
    """By the caller. Raises Forbidden("name_not_allowed")."""
    request.state.caller.require_name(offer.name)
    request.state.audited.adapter = offer.name
    return replace(offer, caller=request.state.caller)


def _text(body: dict[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("invalid_request", f"{field} must be a string.", field)
    return value


def _answer(request: Request, version: Version, status: int = 200) -> JSONResponse:
    state = request.state
    return JSONResponse(adapter_object(version, state.registry, state.engine.base), status)


def list_adapters(request: Request) -> JSONResponse:
    """`GET /v1/adapters`: every version, the newest of a name first."""
    registry, base = request.state.registry, request.state.engine.base
    data = [
        adapter_object(version, registry, base)
        for name in sorted(filter(request.state.caller.sees, registry.names()))
        for version in sorted(registry.versions(name), key=lambda v: -v.number)
    ]
    return JSONResponse({"object": "list", "data": data})


def show(request: Request) -> JSONResponse:
    """`GET /v1/adapters/{name}[@ref]`"""
    name, ref = parse_reference(request.path_params["reference"], "name")
    request.state.caller.require(name, no_adapter)
    return _answer(request, request.state.registry.resolve(name, ref))


async def remove(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}[@ref]`: requests in flight finish, new ones get 404."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    cascade = request.query_params.get("cascade", "false") == "true"
    request.state.caller.require(name, no_adapter)
    if cascade:
        request.state.caller.require_operator("cascade: others' compositions may depend on this adapter")
    await request.state.removal.remove(name, ref, cascade=cascade)
    return Response(status_code=204)


async def put_alias(request: Request) -> JSONResponse:
    """`PUT /v1/adapters/{name}/aliases/{alias}` with `{"version": 2}`: moves it, in one step."""
    name, alias = check_name(request.path_params["name"]), check_alias(request.path_params["alias"])
    number = (await read_object(request)).get("version")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidRequest("invalid_version", "version must be a version number.", "version")
    request.state.caller.require(name, no_adapter)
    registry = request.state.registry
    version = await run_in_threadpool(registry.set_alias, name, alias, str(number))
    request.state.resolver.registry_changed()
    return _answer(request, version)


async def delete_alias(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}/aliases/{alias}`"""
    name, alias = check_name(request.path_params["name"]), check_alias(request.path_params["alias"])
    request.state.caller.require(name, no_adapter)
    await run_in_threadpool(request.state.registry.remove_alias, name, alias)
    request.state.resolver.registry_changed()
    return Response(status_code=204)


ROUTES = [
    Route("/v1/adapters", register, methods=["POST"]),
    Route("/v1/adapters", list_adapters, methods=["GET"]),
    Route("/v1/adapters/{reference}", show, methods=["GET"]),
    Route("/v1/adapters/{reference}", remove, methods=["DELETE"]),
    Route("/v1/adapters/{name}/aliases/{alias}", put_alias, methods=["PUT"]),
    Route("/v1/adapters/{name}/aliases/{alias}", delete_alias, methods=["DELETE"]),
]
