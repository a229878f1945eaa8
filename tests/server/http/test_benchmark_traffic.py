"""The key of a running benchmark: it is valid while the benchmark runs, and only for its requests."""

from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.tenants.audit import Audit
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.middleware import AuthContext, AuthMiddleware


async def status(traffic: BenchmarkTraffic, key: str) -> int:
    auth = AuthContext(Keyring(dict, ["configured"], traffic), Audit(Path("/dev/null")))
    app = AuthMiddleware(PlainTextResponse("in"), auth)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        reply = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        return reply.status_code


async def test_a_run_s_key_is_valid_only_while_it_runs() -> None:
    traffic = BenchmarkTraffic()
    first = traffic.open()
    second = traffic.open()
    assert [await status(traffic, key) for key in ("configured", first, second)] == [200, 401, 200]
    traffic.close()
    assert [await status(traffic, key) for key in ("configured", second, "")] == [200, 401, 401]


@pytest.mark.parametrize("header", ["Basic {}", "Bearer{}", "{}", "Bearer  {}"])
def test_only_a_bearer_token_is_the_benchmark_s(header: str) -> None:
    traffic = BenchmarkTraffic()
    given = header.format(traffic.open()).encode()
    assert not traffic.is_own({"headers": [(b"authorization", given)]})
    assert not traffic.is_own({"headers": []})


def test_a_request_that_fails_is_no_longer_in_flight() -> None:
    traffic = BenchmarkTraffic()
    with pytest.raises(RuntimeError), traffic.counted({"headers": []}):
        raise RuntimeError
    assert traffic.real == 0
