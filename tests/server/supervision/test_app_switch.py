import logging
from typing import Any, cast

import httpx
import pytest

from lora_compose.server.http.access_log import RequestLogMiddleware
from lora_compose.server.http.request_id import RequestIdMiddleware
from lora_compose.server.supervision.app_switch import AppSwitch


async def answer(path: str, request_id: str, app_switch: AppSwitch | None = None) -> httpx.Response:
    app = RequestIdMiddleware(RequestLogMiddleware(app_switch or AppSwitch()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.get(path, headers={"x-request-id": request_id})


async def test_a_request_has_its_id_and_a_line_also_while_there_is_no_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "server")
    reply = await answer("/v1/models", "mine-1")
    assert (reply.status_code, reply.headers["x-request-id"]) == (503, "mine-1")
    assert reply.json()["error"]["code"] == "engine_loading"
    (line,) = [record for record in caplog.records if record.message == "answered"]
    assert line.__dict__["fields"]["status"] == 503


@pytest.mark.parametrize("forged", ["", "a b", "x" * 129, "{}", "<>"])
async def test_an_id_that_could_forge_something_is_replaced(forged: str) -> None:
    given = (await answer("/livez", forged)).headers["x-request-id"]
    assert given != forged
    assert given.isalnum()


async def test_loading_and_restarting_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lora_compose.server")
    app_switch = AppSwitch()
    assert (await answer("/livez", "a", app_switch)).json() == {"status": "alive"}
    loading = await answer("/readyz", "a", app_switch)
    assert (loading.status_code, loading.json()["status"]) == (503, "loading")
    assert (loading.json()["error"]["code"], loading.headers["retry-after"]) == ("engine_loading", "1")
    assert caplog.records == []  # a probe asks every second, and loading is no fault
    app_switch.open(AppSwitch(), cast(Any, {}))
    app_switch.close()
    restarting = await answer("/readyz", "a", app_switch)
    assert (restarting.status_code, restarting.json()["status"]) == (503, "restarting")
    assert restarting.json()["error"]["code"] == "engine_unavailable"
    assert [record.message for record in caplog.records] == ["answered"]
