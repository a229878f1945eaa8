"""The complete HTTP interface: the list of routes and middleware.

`AppSwitch` puts the `AppState` that the routes use into `request.state`.
"""

from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from lora_compose.server.api import (
    adapters,
    benchmarks,
    compositions,
    docs_page,
    fusion,
    health,
    lora_adapters,
    models,
    ollama,
    openapi,
    residency,
    stored_responses,
    tgi,
    vllm_adapters,
    vllm_info,
)
from lora_compose.server.errors import EXCEPTION_HANDLERS
from lora_compose.server.generation.accounting import Accounting
from lora_compose.server.generation.endpoint import GenerationEndpoint
from lora_compose.server.http.request_metrics import RequestMetricsMiddleware
from lora_compose.server.paths import GENERATING, NAMING, POOLING
from lora_compose.server.state import AppState
from lora_compose.server.tenants.middleware import AuthContext, AuthMiddleware
from lora_compose.server.translations.ollama_request import OLLAMA
from lora_compose.server.translations.tgi_request import TGI


def create_app(state: AppState, auth: AuthContext) -> Starlette:
    """The ASGI app for a running engine."""
    app = Starlette(
        routes=[*generating_routes(state), *routes()],
        middleware=[
            Middleware(RequestMetricsMiddleware, state["metrics"]),
            Middleware(AuthMiddleware, auth),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


def generating_routes(state: AppState) -> list[BaseRoute]:
    """vLLM's routes and those of other servers. Each has an endpoint that resolves the composition first."""
    with_weights = GenerationEndpoint(
        engine=state["engine"],
        pipeline=state["pipeline"],
        accounting=Accounting(metrics=state["metrics"], traffic=state["benchmarks"].traffic),
    )
    by_name = replace(with_weights, needs_weights=False)
    return [
        *(Route(path, with_weights, methods=["POST"]) for path in (*GENERATING, *POOLING)),
        *(Route(path, by_name, methods=["POST"]) for path in NAMING),
        *(
            Route(path, replace(with_weights, translation=translation), methods=["POST"])
            for path, translation in (TGI | OLLAMA).items()
        ),
    ]


def routes() -> list[BaseRoute]:
    """The routes that do not generate."""
    return [
        *models.ROUTES,
        *adapters.ROUTES,
        *compositions.ROUTES,
        *vllm_adapters.ROUTES,
        *lora_adapters.ROUTES,
        *tgi.ROUTES,
        *ollama.ROUTES,
        *residency.ROUTES,
        *fusion.ROUTES,
        *benchmarks.ROUTES,
        *openapi.ROUTES,
        *docs_page.ROUTES,
        *health.ROUTES,
        *vllm_info.ROUTES,
        *stored_responses.ROUTES,
    ]
