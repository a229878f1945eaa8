"""`/v1/adapters`: register, list, inspect and remove adapters while the server runs; move their aliases."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.composition_grammar import parse_reference
from adapters.errors import InvalidRequest, NotFound
from adapters.file_limits import CONFIG_FILE, WEIGHTS_FILE
from adapters.names import check_alias, check_name
from adapters.store import Version
from adapters.version_rows import no_adapter
from server.merges import servable_of
from server.openapi.objects import AdapterList, AdapterObject
from server.registration import Offer
from server.request_body import read_flag, read_object
from server.requests import AdapterOffer, AliasTarget
from server.upload import read_upload, uploaded_file


def adapter_object(version: Version, aliases: list[str], base: str) -> AdapterObject:
    """One version as JSON; `aliases` are those that point at it."""
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
        "aliases": aliases,
        "parameters": version.parameters,
        "coverage": version.coverage,
        "warnings": list(version.warnings),
        "lineage": version.lineage.get("training", {}),
    }


async def register(request: Request) -> JSONResponse:
    """`POST /v1/adapters`: 201 with a new version, 200 where these bytes are registered already."""
    request.state.caller.build()
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
    fields = AdapterOffer.read(body)
    offer = offered(request, Offer(fields.name, fields.alias, fields.digest, fields.lineage))
    if (fields.path is None) == (fields.hf is None):
        raise InvalidRequest("invalid_source", "Give either a path or an hf reference.", "path")
    registration = request.state.registration
    if fields.path is not None:
        return await run_in_threadpool(registration.from_path, offer, fields.path)
    return await run_in_threadpool(registration.from_hub, offer, fields.hf)


def offered(request: Request, offer: Offer) -> Offer:
    """By the caller. Raises Forbidden("name_not_allowed")."""
    request.state.caller.require_name(offer.name)
    request.state.audited.adapter = offer.name
    return replace(offer, caller=request.state.caller)


def _answer(request: Request, version: Version, status: int = 200) -> JSONResponse:
    state = request.state
    numbers: dict[str, int] = {}
    with suppress(NotFound):  # somebody may have removed it since; it was registered all the same
        numbers = state.registry.aliases(version.name)
    aliases = [alias for alias, number in numbers.items() if number == version.number]
    return JSONResponse(adapter_object(version, aliases, state.engine.base), status)


def list_adapters(request: Request) -> JSONResponse:
    """`GET /v1/adapters`: every version, the newest of a name first."""
    base, sees = request.state.engine.base, request.state.caller.sees
    data = [
        adapter_object(version, aliases, base)
        for version, aliases in request.state.registry.catalogue()
        if sees(version.name)
    ]
    listed: AdapterList = {"object": "list", "data": data}
    return JSONResponse(listed)


def show(request: Request) -> JSONResponse:
    """`GET /v1/adapters/{name}[@ref]`: one version, the newest where none is named."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    request.state.caller.require(name, no_adapter)
    return _answer(request, request.state.registry.resolve(name, ref))


async def remove(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}[@ref]`: requests in flight finish, new ones get 404."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    cascade = read_flag(request, "cascade")
    request.state.caller.require(name, no_adapter)
    if cascade:
        request.state.caller.require_operator("cascade: others' compositions may depend on this adapter")
    await request.state.removal.remove(name, ref, cascade=cascade)
    return Response(status_code=204)


async def put_alias(request: Request) -> JSONResponse:
    """`PUT /v1/adapters/{name}/aliases/{alias}`: the alias points to `{"version": 2}` from now on."""
    name, alias = check_name(request.path_params["name"]), check_alias(request.path_params["alias"])
    number = AliasTarget.read(await read_object(request)).version
    request.state.caller.require(name, no_adapter)
    registry = request.state.registry
    version = await run_in_threadpool(registry.set_alias, name, alias, str(number))
    request.state.resolver.registry_changed()
    return _answer(request, version)


async def delete_alias(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}/aliases/{alias}`: the alias goes, the version stays."""
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
