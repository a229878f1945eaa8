"""The HTTP surface, all of it: what is not listed here does not exist.

The app is data: routes and middleware. `Front` puts the `AppState` that the routes use into `request.state`.
"""

from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from lora_compose.server.api import adapters as adapters_api
from lora_compose.server.api import benchmarks as benchmarks_api
from lora_compose.server.api import compositions as compositions_api
from lora_compose.server.api import fusion as fusion_api
from lora_compose.server.api import health as probes
from lora_compose.server.api import models as models_api
from lora_compose.server.api import openapi as openapi_api
from lora_compose.server.api import residency as residency_api
from lora_compose.server.api import vllm_adapters as lora_adapter_api
from lora_compose.server.errors import EXCEPTION_HANDLERS
from lora_compose.server.generation.accounting import Accounting
from lora_compose.server.generation.endpoint import GenerationEndpoint
from lora_compose.server.http.request_metrics import RequestMetricsMiddleware
from lora_compose.server.paths import GENERATING, NAMING
from lora_compose.server.state import AppState
from lora_compose.server.tenants.middleware import AuthContext, AuthMiddleware


def create_app(state: AppState, door: AuthContext) -> Starlette:
    """The app in front of a running engine."""
    app = Starlette(
        routes=[*generating_routes(state), *routes()],
        middleware=[
            Middleware(RequestMetricsMiddleware, state["metrics"]),
            Middleware(AuthMiddleware, door),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


def generating_routes(state: AppState) -> list[BaseRoute]:
    """vLLM's routes, each behind the composition."""
    with_weights = GenerationEndpoint(
        engine=state["engine"],
        pipeline=state["pipeline"],
        accounting=Accounting(metrics=state["metrics"], traffic=state["benchmarks"].traffic),
    )
    by_name = replace(with_weights, needs_weights=False)
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
