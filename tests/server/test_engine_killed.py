"""The engine is killed, or stops: nobody is left waiting, and what was asked of it is put back."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.running_server import RunningServer
from training.testbed.paths import ADAPTERS_DIR

ASKED = {"prompt": "roll table", "max_tokens": 8, "temperature": 0}
PATIENCE = 90.0


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("lone")
    options = ["--adapter-root", str(ADAPTERS_DIR), "--hang-seconds", "8"]
    server = RunningServer.start(home / "data", home / "log", options)
    try:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for name in ("roll", "upper", "dbl"):
                body = {"name": name, "path": str(ADAPTERS_DIR / name)}
                http.post("/v1/adapters", json=body).raise_for_status()
            http.put("/v1/adapters/dbl/pin").raise_for_status()
            http.put("/v1/fusion", json={"model": "roll+upper:0.5"}).raise_for_status()
            until(lambda: http.get("/v1/fusion").json()["state"] == "fused")
        yield server
    finally:
        assert server.stop() == 0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_ready(server: RunningServer) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200


def seen(server: RunningServer) -> list[object]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        models = ("testbed-base", "roll", "roll+upper:0.5", "upper+dbl")
        answers = [http.post("/v1/completions", json=ASKED | {"model": model}).json() for model in models]
        texts = [each["choices"][0]["text"] for each in answers]
        host = http.get("/v1/residency").json()["host"]["adapters"]
        pinned = [one["id"] for one in host if one["pinned"]]
        fused = http.get("/v1/fusion").json()["model"]
        return [texts, pinned, fused, http.get("/v1/adapters").json()]


def test_a_killed_engine_is_replaced_with_all_that_was_asked_of_it(lone: RunningServer) -> None:
    before = seen(lone)
    for _ in range(2):
        body = ASKED | {"model": "roll", "max_tokens": 900, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{lone.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            lone.engine().kill()
            rest = [line for line in lines if line]
        assert '"code": "engine_unavailable"' in rest[-1] or '"code": "engine_unavailable"' in rest[-2]
        until(lambda: not is_ready(lone))
        told = httpx.post(f"{lone.url}/v1/completions", json=ASKED, timeout=60)
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{lone.url}/livez").status_code == 200
        until(lambda: is_ready(lone))
        assert seen(lone) == before
    assert "lora_compose_engine_restarts_total 2.0" in httpx.get(f"{lone.url}/metrics").text


def test_a_fuse_that_the_engines_death_interrupts_is_refused_and_what_was_fused_stays(
    lone: RunningServer,
) -> None:
    before, engine = seen(lone), lone.engine()
    os.kill(engine.pid, signal.SIGSTOP)  # so that the call is under way when it dies
    with ThreadPoolExecutor(1) as pool:
        body = {"model": "dbl"}
        asked = pool.submit(httpx.put, f"{lone.url}/v1/fusion", json=body, timeout=PATIENCE)
        until(lambda: httpx.get(f"{lone.url}/v1/fusion").json().get("state") == "fusing")
        engine.kill()
        told = asked.result()
    assert (told.status_code, told.json()["error"]["code"]) == (503, "engine_unavailable")
    until(lambda: not engine.is_running() and is_ready(lone))
    assert seen(lone) == before


def test_a_stopped_engine_gets_no_traffic_until_it_goes_on(lone: RunningServer) -> None:
    before, engine = seen(lone), lone.engine()
    os.kill(engine.pid, signal.SIGSTOP)
    until(lambda: not is_ready(lone))
    os.kill(engine.pid, signal.SIGCONT)
    until(lambda: is_ready(lone))
    assert lone.engine().pid == engine.pid
    assert seen(lone) == before


def test_one_that_does_not_go_on_is_ended_and_replaced(lone: RunningServer) -> None:
    before, engine = seen(lone), lone.engine()
    os.kill(engine.pid, signal.SIGSTOP)
    until(lambda: not is_ready(lone))
    until(lambda: is_ready(lone))
    assert not engine.is_running()
    assert seen(lone) == before
