"""After a restart, everything registered is still there and answers as before."""

from tests.running_server import RunningServer
from tests.server.lone_server import LoneServer
from tests.server.test_stack import served

COMPOSITIONS = ["duo", "roll@prod", "svd(roll+upper,rank=8)", "roll@1:0.5+upper@1"]


def fill(lone: LoneServer) -> None:
    lone.register(("roll", "upper"))
    with lone.client() as http:
        http.put("/v1/adapters/roll/aliases/prod", json={"version": 1}).raise_for_status()
        http.post("/v1/compositions", json={"name": "duo", "model": "roll+upper:0.5"}).raise_for_status()


def everything(lone: LoneServer) -> list[object]:
    with lone.client() as http:
        http.delete("/v1/fusion").raise_for_status()
        lists = [http.get(path).json() for path in ("/v1/adapters", "/v1/compositions", "/v1/models")]
        return lists + [served(http, model=model) for model in COMPOSITIONS]


def test_a_restart_loses_nothing_and_sigterm_ends_with_code_zero(lone: LoneServer) -> None:
    fill(lone)
    refuse_second_owner(lone)
    before = everything(lone)
    assert lone.restart() == 0
    assert everything(lone) == before


def refuse_second_owner(lone: LoneServer) -> None:
    """A data directory in use is refused before an engine starts."""
    second = RunningServer.start(lone.home / "data", lone.home / "second-log")
    assert second.process.wait(60) != 0
    assert "another process" in second.log.read_text().lower()
