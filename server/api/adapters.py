"""`/v1/adapters`: register, list, show and remove adapters while the server runs, and set their aliases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, BinaryIO, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive

from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import Code, InvalidRequest, NotFound
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.adapters.peft.files import CONFIG_FILE, FILES, WEIGHTS_FILE
from lora_compose.adapters.registry.description import describe
from lora_compose.adapters.registry.store import Version
from lora_compose.adapters.registry.versions import no_adapter
from lora_compose.adapters.validation import unknown_field
from lora_compose.server.api.requests import AdapterOffer, AdapterUpload, AliasTarget
from lora_compose.server.api.responses import AdapterList, AdapterObject
from lora_compose.server.compositions.merges import servable_of
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.http.body import read_flag, read_object
from lora_compose.server.registration import Offer

OVERHEAD_BYTES = 1024 * 1024
"""The most bytes of an upload besides the weights: config, boundaries and headers of the parts."""


@asynccontextmanager
async def read_upload(request: Request, max_bytes: int) -> AsyncIterator[tuple[Offer, FormData]]:
    """Read an upload: the offer, and the form with its two files. The context closes the form.

    Raises InvalidRequest("invalid_upload") if the form is not valid, and HTTPException 413 if too large.
    """
    limited = Request(request.scope, _bounded(request.receive, max_bytes + OVERHEAD_BYTES))
    try:
        form = await limited.form(max_files=len(FILES), max_fields=len(AdapterUpload.model_fields))
    except MultiPartException as error:
        raise InvalidRequest(Code.INVALID_UPLOAD, error.message) from error
    except HTTPException as error:
        if error.status_code == 400:
            raise InvalidRequest(Code.INVALID_UPLOAD, error.detail) from error
        raise
    try:
        yield _offer(form), form
    finally:
        await form.close()


def uploaded_file(form: FormData, name: str) -> BinaryIO:
    """The open file of this name. Raises InvalidRequest("invalid_upload") if it is missing."""
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and _file_name(field, value) == name:
            return value.file
    raise InvalidRequest(Code.INVALID_UPLOAD, f"The file {name} is missing in the upload.", name)


def _offer(form: FormData) -> Offer:
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and _file_name(field, value) not in FILES:
            raise unknown_field(field)
    texts = {field: value for field, value in form.multi_items() if isinstance(value, str)}
    fields = AdapterUpload.read(texts)
    return Offer(fields.name, fields.alias, fields.digest, fields.lineage, fields.ttl_seconds)


def _file_name(field: str, part: UploadFile) -> str | None:
    return field if field in FILES else part.filename


def _bounded(receive: Receive, limit: int) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"The upload is larger than {limit} bytes.")
        return message

    return bounded


def adapter_object(version: Version, aliases: list[str], resolver: Resolver) -> AdapterObject:
    """One version as JSON. `aliases` are the aliases that point to it."""
    return cast(AdapterObject, describe(version, aliases, resolver.served))


async def register(request: Request) -> JSONResponse:
    """`POST /v1/adapters`: register an adapter. 200 if these files are registered already."""
    request.state.caller.build()
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        version, created = await _register_upload(request)
    else:
        version, created = await _register_reference(await read_object(request), request)
    request.state.audited.digest, request.state.audited.version = version.digest, version.number
    request.state.residency.prefetch(servable_of(version))
    await request.state.keeper.registered()
    return _answer(request, version, 201 if created else 200)


async def _register_upload(request: Request) -> tuple[Version, bool]:
    registration = request.state.registration
    async with read_upload(request, registration.limits.max_bytes) as (offer, form):
        offer = authorized_offer(request, offer)
        files = [uploaded_file(form, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
        return await run_in_threadpool(registration.from_files, offer, *files)


async def _register_reference(body: dict[str, Any], request: Request) -> tuple[Version, bool]:
    fields = AdapterOffer.read(body)
    asked = Offer(fields.name, fields.alias, fields.digest, fields.lineage, fields.ttl_seconds)
    offer = authorized_offer(request, asked)
    if (fields.path is None) == (fields.hf is None):
        raise InvalidRequest(Code.INVALID_SOURCE, "The request must have exactly one of path and hf.", "path")
    registration = request.state.registration
    if fields.path is not None:
        return await run_in_threadpool(registration.from_path, offer, fields.path)
    return await run_in_threadpool(registration.from_hub, offer, fields.hf)


def authorized_offer(request: Request, offer: Offer) -> Offer:
    """The offer with its caller. Raises Forbidden("name_not_allowed")."""
    request.state.caller.require_name(offer.name)
    request.state.audited.adapter = offer.name
    return replace(offer, caller=request.state.caller)


def _answer(request: Request, version: Version, status: int = 200) -> JSONResponse:
    state = request.state
    numbers: dict[str, int] = {}
    with suppress(NotFound):  # another request may have removed it since then
        numbers = state.registry.aliases(version.name)
    aliases = [alias for alias, number in numbers.items() if number == version.number]
    return JSONResponse(adapter_object(version, aliases, state.resolver), status)


def list_adapters(request: Request) -> JSONResponse:
    """`GET /v1/adapters`: list all versions, the newest of each name first."""
    resolver, sees = request.state.resolver, request.state.caller.sees
    data = [
        adapter_object(version, aliases, resolver)
        for version, aliases in request.state.registry.catalogue()
        if sees(version.name)
    ]
    listed: AdapterList = {"object": "list", "data": data}
    return JSONResponse(listed)


def show(request: Request) -> JSONResponse:
    """`GET /v1/adapters/{name}[@ref]`: show one version; without a ref, the one that a request would get."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    request.state.caller.require(name, no_adapter)
    bases = request.state.resolver.fingerprints
    return _answer(request, request.state.registry.resolve(name, ref, bases))


async def remove(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}[@ref]`: remove an adapter or a version. Requests in flight finish."""
    name, ref = parse_reference(request.path_params["reference"], "name")
    cascade = read_flag(request, "cascade")
    request.state.caller.require(name, no_adapter)
    if cascade:
        request.state.caller.require_operator(
            "use cascade, because it also deletes compositions of other keys"
        )
    await request.state.removal.remove(name, ref, cascade=cascade)
    return Response(status_code=204)


async def put_alias(request: Request) -> JSONResponse:
    """`PUT /v1/adapters/{name}/aliases/{alias}`: point an alias to a version, as in `{"version": 2}`."""
    name, alias = check_name(request.path_params["name"]), check_alias(request.path_params["alias"])
    number = AliasTarget.read(await read_object(request)).version
    request.state.caller.require(name, no_adapter)
    registry = request.state.registry
    version = await run_in_threadpool(registry.set_alias, name, alias, str(number))
    request.state.resolver.registry_changed()
    return _answer(request, version)


async def delete_alias(request: Request) -> Response:
    """`DELETE /v1/adapters/{name}/aliases/{alias}`: remove an alias. The version stays."""
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
