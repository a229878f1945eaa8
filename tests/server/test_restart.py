"""After a restart everything registered is there, and answers as before."""

from pathlib import Path

import httpx

from tests.running_server import RunningServer
from tests.server.test_stack import served
from training.testbed.paths import ADAPTERS_DIR

COMPOSITIONS = ["duo", "roll@prod", "svd(roll+upper,rank=8)", "roll@1:0.5+upper@1"]


def fill(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        for name in ("roll", "upper"):
            body = {"name": name, "path": str(ADAPTERS_DIR / name)}
            http.post("/v1/adapters", json=body).raise_for_status()
        http.put("/v1/adapters/roll/aliases/prod", json={"version": 1}).raise_for_status()
        http.post("/v1/compositions", json={"name": "duo", "model": "roll+upper:0.5"}).raise_for_status()


def everything(url: str) -> list[object]:
    with httpx.Client(base_url=url, timeout=60) as http:
        lists = [http.get(path).json() for path in ("/v1/adapters", "/v1/compositions", "/v1/models")]
        return lists + [served(http, model=model) for model in COMPOSITIONS]


def test_a_restart_loses_nothing_and_sigterm_ends_with_code_zero(tmp_path: Path) -> None:
    options = ["--adapter-root", str(ADAPTERS_DIR)]
    seen = []
    for first in (True, False):
        running = RunningServer.start(tmp_path / "data", tmp_path / "log", options)
        try:
            running.wait_until_ready()
            if first:
                fill(running.url)
                refuse_second_owner(tmp_path)
            seen.append(everything(running.url))
        finally:
            assert running.stop() == 0
    assert seen[0] == seen[1]


def refuse_second_owner(home: Path) -> None:
    """A data directory in use is refused at once, before any engine starts."""
    second = RunningServer.start(home / "data", home / "second-log")
    assert second.process.wait(60) != 0
    assert "another process" in second.log.read_text().lower()
