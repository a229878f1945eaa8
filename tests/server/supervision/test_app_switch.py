import logging

import httpx
import pytest

from lora_compose.server.http.access_log import RequestLogMiddleware
from lora_compose.server.http.request_id import RequestIdMiddleware
from lora_compose.server.supervision.app_switch import AppSwitch


async def answer(path: str, request_id: str) -> httpx.Response:
    transport = httpx.ASGITransport(RequestIdMiddleware(RequestLogMiddleware(AppSwitch())))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.get(path, headers={"x-request-id": request_id})


async def test_a_request_has_its_id_and_a_line_also_while_there_is_no_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "server")
    reply = await answer("/v1/models", "mine-1")
    assert (reply.status_code, reply.headers["x-request-id"]) == (503, "mine-1")
    assert reply.json()["error"]["code"] == "engine_unavailable"
    (line,) = [record for record in caplog.records if record.message == "answered"]
    assert line.__dict__["fields"]["status"] == 503


@pytest.mark.parametrize("forged", ["", "a b", "x" * 129, "{}", "<>"])
async def test_an_id_that_could_forge_something_is_replaced(forged: str) -> None:
    given = (await answer("/livez", forged)).headers["x-request-id"]
    assert given != forged
    assert given.isalnum()
