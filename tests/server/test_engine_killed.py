"""The engine is killed or stops: every request gets an answer, and pins and fusion are restored."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.server.api.test_residency import counter
from tests.server.lone_server import PATIENCE, LoneServer, until

ASKED = {"prompt": "roll table", "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def asked_much(lone: LoneServer) -> LoneServer:
    """Pin an adapter and fuse a composition of two adapters."""
    lone.register(("roll", "upper", "dbl"))
    with lone.client() as http:
        http.put("/v1/adapters/dbl/pin").raise_for_status()
        http.put("/v1/fusion", json={"model": "roll+upper:0.5"}).raise_for_status()
        assert http.get("/v1/fusion").json()["state"] == "fused"
    return lone


def restarts(server: LoneServer) -> float:
    with server.client() as http:
        return counter(http, "lora_compose_engine_restarts_total")


def is_ready(server: LoneServer) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200


def seen(server: LoneServer) -> list[object]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        models = ("testbed-base", "roll", "roll+upper:0.5", "upper+dbl")
        answers = [http.post("/v1/completions", json=ASKED | {"model": model}).json() for model in models]
        texts = [each["choices"][0]["text"] for each in answers]
        host = http.get("/v1/residency").json()["host"]["adapters"]
        pinned = [one["id"] for one in host if one["pinned"]]
        fused = http.get("/v1/fusion").json()["model"]
        return [texts, pinned, fused, http.get("/v1/adapters").json()]


def test_a_killed_engine_is_replaced_with_all_that_was_asked_of_it(asked_much: LoneServer) -> None:
    before, restarted = seen(asked_much), restarts(asked_much)
    for _ in range(2):
        body = ASKED | {"model": "roll", "max_tokens": 900, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{asked_much.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            asked_much.running.engine().kill()
            rest = [line for line in lines if line]
        assert '"code": "engine_unavailable"' in rest[-1] or '"code": "engine_unavailable"' in rest[-2]
        until(lambda: not is_ready(asked_much))
        told = httpx.post(f"{asked_much.url}/v1/completions", json=ASKED, timeout=60)
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{asked_much.url}/livez").status_code == 200
        until(lambda: is_ready(asked_much))
        assert seen(asked_much) == before
    assert restarts(asked_much) == restarted + 2


def test_a_fuse_that_the_engines_death_interrupts_is_refused_and_what_was_fused_stays(
    asked_much: LoneServer,
) -> None:
    before, engine = seen(asked_much), asked_much.running.engine()
    os.kill(engine.pid, signal.SIGSTOP)  # so that the call is in progress when the engine dies
    with ThreadPoolExecutor(1) as pool:
        body = {"model": "dbl"}
        asked = pool.submit(httpx.put, f"{asked_much.url}/v1/fusion", json=body, timeout=PATIENCE)
        until(lambda: httpx.get(f"{asked_much.url}/v1/fusion").json().get("state") == "fusing")
        engine.kill()
        told = asked.result()
    assert (told.status_code, told.json()["error"]["code"]) == (503, "engine_unavailable")
    until(lambda: not engine.is_running() and is_ready(asked_much))
    assert seen(asked_much) == before


def test_a_stopped_engine_gets_no_traffic_until_it_goes_on(asked_much: LoneServer) -> None:
    before, engine = seen(asked_much), asked_much.running.engine()
    os.kill(engine.pid, signal.SIGSTOP)
    until(lambda: not is_ready(asked_much))
    os.kill(engine.pid, signal.SIGCONT)
    until(lambda: is_ready(asked_much))
    assert asked_much.running.engine().pid == engine.pid
    assert seen(asked_much) == before


def test_one_that_does_not_go_on_is_ended_and_replaced(asked_much: LoneServer) -> None:
    before, engine = seen(asked_much), asked_much.running.engine()
    os.kill(engine.pid, signal.SIGSTOP)
    until(lambda: not is_ready(asked_much))
    until(lambda: is_ready(asked_much))
    assert not engine.is_running()
    assert seen(asked_much) == before
