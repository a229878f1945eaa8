"""The HTTP surface, all of it: what is not listed here does not exist.

The app is data: routes and middleware. `Front` puts the parts the routes work with into `request.state`.
"""

from typing import TypedDict

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from adapters.registry import Registry
from server import (
    adapters_api,
    benchmarks_api,
    compositions_api,
    fusion_api,
    lora_adapter_api,
    models_api,
    openapi_api,
    probes,
    residency_api,
)
from server.auth import Door, DoorMiddleware
from server.benchmark_runs import Benchmarks
from server.engine.launch import Engine
from server.errors import EXCEPTION_HANDLERS
from server.fusion import Fusion
from server.generation import Generation
from server.merges import Merges
from server.metrics import Metrics
from server.pulse import Pulse
from server.registration import Registration
from server.removal import Removal
from server.request_metrics import RequestMetricsMiddleware
from server.residency import Residency
from server.resolver import Resolver
from server.tenants.access import GENERATING, NAMING


class Parts(TypedDict):
    """What a request finds in `request.state`."""

    engine: Engine
    registry: Registry
    resolver: Resolver
    merges: Merges
    residency: Residency
    fusion: Fusion
    registration: Registration
    removal: Removal
    metrics: Metrics
    benchmarks: Benchmarks
    pulse: Pulse


def create_app(parts: Parts, door: Door) -> Starlette:
    """The app in front of a running engine."""
    app = Starlette(
        routes=[*generating_routes(parts), *routes()],
        middleware=[
            Middleware(RequestMetricsMiddleware, parts["metrics"]),
            Middleware(DoorMiddleware, door),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


def generating_routes(parts: Parts) -> list[BaseRoute]:
    """vLLM's routes, each behind the composition."""
    engine = parts["engine"]
    composing = (parts["resolver"], parts["merges"], parts["residency"], parts["fusion"])
    counted = (parts["metrics"], parts["benchmarks"].traffic)
    shared = (engine.app, engine.base, engine.is_alive, engine.longest_body, *composing, *counted)
    with_weights = Generation(*shared)
    by_name = Generation(*shared, needs_weights=False)
    return [
        *(Route(path, with_weights, methods=["POST"]) for path in GENERATING),
        *(Route(path, by_name, methods=["POST"]) for path in NAMING),
    ]


def routes() -> list[BaseRoute]:
    """Ours."""
    return [
        *models_api.ROUTES,
        *adapters_api.ROUTES,
        *compositions_api.ROUTES,
        *lora_adapter_api.ROUTES,
        *residency_api.ROUTES,
        *fusion_api.ROUTES,
        *benchmarks_api.ROUTES,
        *openapi_api.ROUTES,
        *probes.ROUTES,
    ]
