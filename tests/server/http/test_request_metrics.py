"""Every request is counted: on the app without an engine, and on small apps for unusual endings."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.http.request_metrics import KIND, RequestMetricsMiddleware
from lora_compose.server.metrics import Metrics
from lora_compose.server.tenants.audit import Audit
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.middleware import AuthContext, AuthMiddleware
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import AppWithoutEngine

Read = Callable[..., float]
PROMPT = "roll table"


@pytest.fixture
def http(plain_http: httpx.Client) -> httpx.Client:
    return plain_http


@pytest.fixture
def adapter_root(plain: AppWithoutEngine) -> Path:
    return plain.data_dir.parent


def value(http: httpx.Client, name: str, **labels: str) -> float:
    """The current number of observations of a series; 0 if it does not exist."""
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    return 0.0


@pytest.fixture
def sample(http: httpx.Client) -> Read:
    """The current value of a series; 0 if it does not exist."""
    return partial(value, http)


def test_a_refusal_counts_before_it_is_known_what_was_asked(http: httpx.Client, sample: Read) -> None:
    series = ("lora_compose_requests_total", {"kind": "unresolved", "status": "4xx"})
    code = ("lora_compose_refusals_total", {"code": "model_not_found"})
    before = sample(series[0], **series[1]), sample(code[0], **code[1])
    http.post("/v1/completions", json={"model": "nobody", "prompt": PROMPT})
    assert (sample(series[0], **series[1]), sample(code[0], **code[1])) == (before[0] + 1, before[1] + 1)


def test_naming_routes_are_requests_but_none_that_generate(http: httpx.Client, sample: Read) -> None:
    before = sample("lora_compose_requests_total", kind="single", status="2xx")
    http.post("/tokenize", json={"model": "roll", "prompt": PROMPT}).raise_for_status()
    assert sample("lora_compose_http_requests_total", route="/tokenize", status="200") >= 1
    assert sample("lora_compose_requests_total", kind="single", status="2xx") == before


def test_an_adapter_has_a_series_until_it_is_removed(http: httpx.Client, sample: Read) -> None:
    body = {"name": "counted", "path": str(ADAPTERS_DIR / "wrap")}
    http.post("/v1/adapters", json=body).raise_for_status()
    for model in ("counted", "counted:0.5+roll"):
        http.post(
            "/v1/completions", json={"model": model, "prompt": PROMPT, "max_tokens": 1}
        ).raise_for_status()
    assert sample("lora_compose_adapter_requests_total", adapter="counted") == 2
    http.delete("/v1/adapters/counted").raise_for_status()
    assert '"counted"' not in http.get("/metrics").text


def test_files_that_are_missing_count_as_a_refused_registration(
    http: httpx.Client, sample: Read, adapter_root: Path
) -> None:
    (adapter_root / "hollow").mkdir(exist_ok=True)
    before = sample("lora_compose_registrations_total", outcome="refused")
    reply = http.post("/v1/adapters", json={"name": "hollow", "path": str(adapter_root / "hollow")})
    assert reply.status_code == 422
    assert sample("lora_compose_registrations_total", outcome="refused") == before + 1


async def asked(paths: list[str], answer: Callable[[Request], Response], *inner: Middleware) -> Metrics:
    """The metrics of a small app after requests to these paths."""
    metrics = Metrics()
    app = Starlette(
        routes=[Route("/{code}", answer)], middleware=[Middleware(RequestMetricsMiddleware, metrics), *inner]
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in paths:
            await client.get(path)
    return metrics


async def test_codes_that_are_no_literals_of_ours_do_not_fill_the_memory() -> None:
    def refuse(request: Request) -> Response:
        return JSONResponse({"error": {"code": request.path_params["code"]}}, 400)

    metrics = await asked([f"/code{n}" for n in range(300)] + ["/%22}evil"], refuse)
    (family,) = metrics.refusals.collect()
    totals = {s.labels["code"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert len(totals) == 201
    assert totals["other"] == 101


async def test_a_route_is_its_pattern_and_a_path_nobody_serves_is_other() -> None:
    metrics = await asked(["/one", "/two", "/no/such"], lambda _: Response())
    read = metrics.registry.get_sample_value
    assert read("lora_compose_http_requests_total", {"route": "/{code}", "status": "200"}) == 2
    assert read("lora_compose_http_requests_total", {"route": "other", "status": "404"}) == 1


async def test_an_error_inside_a_stream_is_counted_and_is_no_token() -> None:
    async def events() -> AsyncIterator[bytes]:
        yield b'data: {"choices": []}\n\n'
        yield b'data: {"error": {"code": "internal_error"}}\n\n'
        yield b"data: [DONE]\n\n"

    def stream(request: Request) -> Response:
        request.scope["state"][KIND] = "base"
        return StreamingResponse(events(), media_type="text/event-stream")

    read = (await asked(["/one"], stream)).registry.get_sample_value
    assert read("lora_compose_stream_errors_total") == 1
    assert read("lora_compose_time_to_first_token_seconds_count", {"kind": "base"}) == 1
    assert read("lora_compose_inter_token_latency_seconds_count", {"kind": "base"}) is None


async def test_what_authentication_refuses_is_counted(tmp_path: Path) -> None:
    with KeyStore(tmp_path) as keys:
        keyring = Keyring(keys.by_digest, ("secret",), BenchmarkTraffic())
        auth = AuthContext(keyring, Audit(tmp_path / "audit.jsonl"))
        metrics = await asked(["/one"], lambda _: Response(), Middleware(AuthMiddleware, auth))
    read = metrics.registry.get_sample_value
    assert read("lora_compose_refusals_total", {"code": "invalid_api_key"}) == 1
    assert read("lora_compose_http_requests_total", {"route": "other", "status": "401"}) == 1


async def test_a_bug_of_ours_counts_as_500() -> None:
    def fall(_: Request) -> Response:
        raise RuntimeError("a bug")

    metrics = await asked(["/one"], fall)
    read = metrics.registry.get_sample_value
    assert read("lora_compose_http_requests_total", {"route": "/{code}", "status": "500"}) == 1
    assert read("lora_compose_refusals_total", {"code": "internal_error"}) == 1
