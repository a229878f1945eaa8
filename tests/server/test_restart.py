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
    keep(lone)
    assert lone.restart() == 0
    check_kept(lone)
    assert everything(lone) == before
    check_words_of_the_start(lone)


def keep(lone: LoneServer) -> None:
    with lone.client() as http:
        http.put("/v1/adapters/roll@prod/pin").raise_for_status()
        http.put("/v1/fusion", json={"model": "duo"}).raise_for_status()


def check_kept(lone: LoneServer) -> None:
    """The pin and the fused composition are there before the first request is answered."""
    with lone.client() as http:
        fusion = http.get("/v1/fusion").json()
        assert (fusion["state"], fusion["model"]) == ("fused", "roll@1+upper@1:0.5")
        parts = http.get("/v1/residency").json()["host"]["adapters"]
        assert [part["id"] for part in parts if part["pinned"]] == ["roll@1"]


def check_words_of_the_start(lone: LoneServer) -> None:
    """HTTP answers while the model loads, and the log says what was chosen and what to try."""
    loading = lone.while_loading
    assert loading is not None
    assert (loading.status_code, loading.json()["status"]) == (503, "loading")
    log = lone.running.log.read_text()
    for words in ("KV cache: ", "with --kv-cache-memory-bytes", "ready after", f"--url {lone.url}"):
        assert words in log


def refuse_second_owner(lone: LoneServer) -> None:
    """A data directory in use is refused before an engine starts."""
    second = RunningServer.start(lone.home / "data", lone.home / "second-log")
    assert second.process.wait(60) == 1
    assert "another process" in second.log.read_text().lower()
