"""`/v1/compositions`: save a composition under a name, or only predict its cost (`?dry_run=true`)."""

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.errors import Code, InvalidRequest, LoraComposeError, QuotaExceeded
from lora_compose.adapters.names import check_name
from lora_compose.adapters.registry.saved_compositions import no_composition
from lora_compose.server.api.requests import NamedComposition
from lora_compose.server.api.responses import (
    BuildErrorObject,
    BuildObject,
    CompositionList,
    CompositionObject,
    PredictedComposition,
    SavedComposition,
    WarningObject,
)
from lora_compose.server.compositions.early_builds import BuildState, EarlyBuilds
from lora_compose.server.compositions.resolver import ResolvedComposition
from lora_compose.server.http.body import read_flag, read_object
from lora_compose.server.paths import SAVED_COMPOSITION
from lora_compose.server.tenants.caller import Caller


def saved_object(name: str, composition: Composition, state: State) -> CompositionObject:
    """A saved composition as JSON, also one that cannot be served now."""
    try:
        return composition_object(name, state.pipeline.resolve(composition), state.early)
    except LoraComposeError:
        return {
            "object": "composition",
            "name": name,
            "model": composition.canonical,
            "resolved": None,
            "method": composition.method,
            "rank": None,
            "build": {"state": "unbuilt", "error": None},
        }


def composition_object(
    name: str | None, resolved: ResolvedComposition, early: EarlyBuilds
) -> CompositionObject:
    """A composition as JSON: its text, and the versions it stands for now."""
    return {
        "object": "composition",
        "name": name,
        "model": resolved.requested.canonical,
        "resolved": resolved.name,
        "method": resolved.requested.method,
        "rank": resolved.rank,
        "build": build_object(early.state(name, resolved)),
    }


def build_object(build: BuildState) -> BuildObject:
    """The state of a build as JSON."""
    error: BuildErrorObject | None = None
    if build.code is not None and build.message is not None:
        error = {"code": build.code, "message": build.message}
    return {"state": build.state, "error": error}


async def save(request: Request) -> JSONResponse:
    """`POST /v1/compositions`: save a composition or, with `?dry_run=true`, only predict its cost."""
    body = await read_object(request)
    dry_run = read_flag(request, "dry_run")
    if dry_run:
        body.pop("name", None)
    fields = NamedComposition.read(body)
    state, caller = request.state, request.state.caller
    resolved = state.pipeline.resolve(fields, caller)
    if resolved is None:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION, "Name at least one adapter in model or adapters.", "model"
        )
    if dry_run:
        return JSONResponse(await _predicted(request, resolved))
    name = check_name(fields.name)
    caller.require_name(name)
    state.audited.composition = name
    await run_in_threadpool(state.registry.save_composition, name, resolved.requested)
    await run_in_threadpool(_charge_build, state.early, name, resolved, caller)
    state.resolver.registry_changed()
    shown = await run_in_threadpool(composition_object, name, resolved, state.early)
    saved: SavedComposition = {**shown, "warnings": await _warnings(request, resolved)}
    return JSONResponse(saved, 201)


async def _warnings(request: Request, resolved: ResolvedComposition) -> list[WarningObject]:
    """What `adapters.merging.advice` says of the members and their weights."""
    with request.state.pipeline.using(resolved):
        found = await run_in_threadpool(request.state.warnings.of, resolved)
    return [{"code": one.reason, "message": one.message, "suggested": one.suggested} for one in found]


def _charge_build(early: EarlyBuilds, name: str, resolved: ResolvedComposition, caller: Caller) -> None:
    """The build that follows is the caller's. Without a build left in its quota it does not follow."""
    if early.state(name, resolved).state not in ("ready", "building"):
        try:
            caller.build()
        except QuotaExceeded:
            early.leave_unbuilt(name)


async def _predicted(request: Request, resolved: ResolvedComposition) -> PredictedComposition:
    """Rank, bytes and error. A merge is built for this and kept, so that later requests need not build it."""
    pipeline = request.state.pipeline
    with pipeline.using(resolved):
        report = await pipeline.merges.report(resolved, request.state.caller.build)
    size = sum(version.bytes for _, version in resolved.versions) if report is None else report["bytes"]
    error = 0.0 if report is None else report["relative_error"]
    composition = await run_in_threadpool(composition_object, None, resolved, request.state.early)
    warnings = await _warnings(request, resolved)
    return {**composition, "bytes": size, "error": error, "report": report, "warnings": warnings}


def list_compositions(request: Request) -> JSONResponse:
    """`GET /v1/compositions`: list the saved compositions."""
    saved = sorted(request.state.registry.compositions().items())
    data = [
        saved_object(name, composition, request.state)
        for name, composition in saved
        if request.state.caller.sees_all(composition)
    ]
    listed: CompositionList = {"object": "list", "data": data}
    return JSONResponse(listed)


def show(request: Request) -> JSONResponse:
    """`GET /v1/compositions/{name}`: show a saved composition and the versions it stands for now."""
    name = request.path_params["name"]
    composition = request.state.caller.saved(request.state.resolver.saved)(name)
    if composition is None:
        raise no_composition(name)
    return JSONResponse(saved_object(name, composition, request.state))


async def delete(request: Request) -> Response:
    """`DELETE /v1/compositions/{name}`: delete a saved composition. Its adapters stay."""
    name = check_name(request.path_params["name"])
    request.state.caller.require_name(name)
    await run_in_threadpool(request.state.registry.delete_composition, name)
    request.state.resolver.registry_changed()
    return Response(status_code=204)


ROUTES = [
    Route("/v1/compositions", save, methods=["POST"]),
    Route("/v1/compositions", list_compositions, methods=["GET"]),
    Route(SAVED_COMPOSITION, show, methods=["GET"]),
    Route(SAVED_COMPOSITION, delete, methods=["DELETE"]),
]
