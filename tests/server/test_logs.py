"""Log lines on a real server: every request has one, with its id, and none has what was asked."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running_server import RunningServer
from training.testbed.paths import ADAPTERS_DIR

KEY, PROMPT, PLACE = "the-operator-s-key", "a-most-private-question", "/home/somebody/secret"
ASKED = {"model": "roll", "prompt": PROMPT, "max_tokens": 2}


@pytest.fixture(scope="module")
def logging_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("logs")
    options = ["--adapter-root", str(ADAPTERS_DIR), "--api-key", KEY, "--log-format", "json"]
    running = RunningServer.start(home / "data", home / "log", options)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def lines(logging_server: RunningServer) -> list[str]:
    """What some good and some bad requests left in the log."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=logging_server.url, headers=headers, timeout=60) as http:
        http.post(
            "/v1/adapters", json={"name": "roll", "path": str(ADAPTERS_DIR / "roll")}
        ).raise_for_status()
        http.post("/v1/completions", json=ASKED, headers={"x-request-id": "asked-1"}).raise_for_status()
        http.post("/v1/completions", json=ASKED | {"max_tokens": -1}, headers={"x-request-id": "bad-1"})
        http.post("/v1/adapters", json={"name": "x", "path": PLACE})
        http.get(f"/{PLACE}", headers={"authorization": f"Bearer not-{KEY}", "x-request-id": "forged id"})
        http.post("/v1/responses", json={"input": PROMPT, "tools": [{"type": PROMPT}]})
    return logging_server.log.read_text().splitlines()


def told(lines: list[str]) -> list[dict[str, Any]]:
    """From when it served: until then libraries write what they like, and draw progress bars."""
    begun = [index for index, line in enumerate(lines) if "serving " in line]
    return [json.loads(line) for line in lines[begun[0] :]]


def answered(lines: list[str]) -> list[dict[str, Any]]:
    return [line for line in told(lines) if line["message"] == "answered"]


def test_every_line_is_json_whoever_wrote_it(lines: list[str]) -> None:
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in told(lines))


def test_a_request_s_line_says_what_became_of_it(lines: list[str]) -> None:
    (line,) = [line for line in answered(lines) if line["request_id"] == "asked-1"]
    assert (line["method"], line["route"], line["status"], line["kind"]) == (
        "POST",
        "/v1/completions",
        200,
        "single",
    )
    assert line["ms"] > 0
    assert line["key"]
    assert [len(digest) for digest in line["adapters"]] == [12]


def test_a_refusal_has_a_line_and_an_id_that_is_no_one_s_to_forge(lines: list[str]) -> None:
    found = answered(lines)
    assert [line["status"] for line in found if line["request_id"] == "bad-1"] == [400]
    (stranger,) = [line for line in found if line["status"] == 401]
    assert stranger["request_id"].isalnum()
    assert "key" not in stranger


def test_what_was_asked_and_who_asked_is_in_no_line(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert [secret for secret in (KEY, PROMPT, PLACE, "roll table") if secret in text] == []
