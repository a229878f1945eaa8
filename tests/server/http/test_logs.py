"""Log lines of a real server: every request has one with its id, and no line has a prompt."""

import json
from typing import Any

import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.guarded_server import OPERATOR_KEY, GuardedServer

PROMPT, PLACE = "a-most-private-question", "/home/somebody/secret"
ASKED = {"model": "roll", "prompt": PROMPT, "max_tokens": 2}


@pytest.fixture(scope="module")
def sent(guarded: GuardedServer) -> int:
    """Send valid and invalid requests. Returns the number of log lines before them."""
    before = len(guarded.running.log.read_text().splitlines())
    with guarded.client() as http:
        http.post(
            "/v1/adapters", json={"name": "roll", "path": str(ADAPTERS_DIR / "roll")}
        ).raise_for_status()
        http.post("/v1/completions", json=ASKED, headers={"x-request-id": "asked-1"}).raise_for_status()
        http.post("/v1/completions", json=ASKED | {"max_tokens": -1}, headers={"x-request-id": "bad-1"})
        http.post("/v1/adapters", json={"name": "x", "path": PLACE})
        forged = {"authorization": f"Bearer not-{OPERATOR_KEY}", "x-request-id": "forged id"}
        http.get(f"/{PLACE}", headers=forged)
        http.post("/v1/responses", json={"input": PROMPT, "tools": [{"type": PROMPT}]})
    return before


@pytest.fixture(scope="module")
def lines(guarded: GuardedServer, sent: int) -> list[str]:
    """All lines of the log."""
    return guarded.running.log.read_text().splitlines()


def told(lines: list[str]) -> list[dict[str, Any]]:
    """Lines from the start of serving. Before that, libraries write other lines and progress bars."""
    begun = [index for index, line in enumerate(lines) if "serving " in line]
    return [json.loads(line) for line in lines[begun[0] :]]


def answered(lines: list[str]) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, lines) if line["message"] == "answered"]


def test_every_line_is_json_whoever_wrote_it(lines: list[str]) -> None:
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in told(lines))


def test_a_request_s_line_says_what_became_of_it(lines: list[str], sent: int) -> None:
    (line,) = [line for line in answered(lines[sent:]) if line["request_id"] == "asked-1"]
    assert (line["method"], line["route"], line["status"], line["kind"]) == (
        "POST",
        "/v1/completions",
        200,
        "single",
    )
    assert line["ms"] > 0
    assert line["key"]
    assert [len(digest) for digest in line["adapters"]] == [12]


def test_a_refusal_has_a_line_and_an_id_that_is_no_one_s_to_forge(lines: list[str], sent: int) -> None:
    found = answered(lines[sent:])
    assert [line["status"] for line in found if line["request_id"] == "bad-1"] == [400]
    (stranger,) = [line for line in found if line["status"] == 401]
    assert stranger["request_id"].isalnum()
    assert "key" not in stranger


def test_what_was_asked_and_who_asked_is_in_no_line(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert [secret for secret in (OPERATOR_KEY, PROMPT, PLACE, "roll table") if secret in text] == []
