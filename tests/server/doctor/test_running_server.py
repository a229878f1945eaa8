from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lora_compose.server.doctor import running_server
from lora_compose.server.doctor.check import Result, examine
from tests.adapters.http_server import closed_url, serving
from tests.running_server import RunningServer


def look(url: str) -> dict[str, Result]:
    return {check.name: examine(check) for check in running_server.checks(url, None)}


def test_a_server_in_order_is_told_with_its_models_and_versions(server: RunningServer) -> None:
    found = look(server.url)
    assert {result.status for result in found.values()} == {"ok"}, found
    assert "testbed-base" in found["models"].sentence


def test_where_nothing_listens_it_says_how_to_start_one() -> None:
    found = look(closed_url())
    assert {result.status for result in found.values()} == {"fail"}
    assert "lora-compose serve" in found["alive"].sentence


def test_another_program_is_not_taken_for_a_server() -> None:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    with serving(Starlette(routes=[Route("/{path:path}", hello)])) as url:
        assert look(url)["alive"].status == "fail"


def test_what_is_no_url_fails_as_a_sentence() -> None:
    assert {result.status for result in look("nonsense").values()} == {"fail"}
    assert not Path("nonsense").exists()
