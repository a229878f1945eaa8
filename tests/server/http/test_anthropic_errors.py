"""Refusals are rewritten for Anthropic's clients before an engine runs and inside a stream."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from lora_compose.server.generation.vllm_errors import translate_errors
from lora_compose.server.supervision.app_switch import AppSwitch

EVENT = b"""event: error
data: {"type":"error","error":{"type":"internal_error","message":"1 validation error"}}

"""


def test_a_server_that_loads_says_that_it_is_overloaded() -> None:
    reply = TestClient(AppSwitch()).post("/v1/messages", json={})
    told = reply.json()
    assert (reply.status_code, told["type"], told["error"]["type"]) == (503, "error", "overloaded_error")
    assert (told["error"]["code"], reply.headers["retry-after"]) == ("engine_loading", "1")
    for path in ("/v1/completions", "/v1/messagesx"):
        assert "type" not in TestClient(AppSwitch()).post(path).json()


@pytest.mark.parametrize(
    ("is_alive", "kind", "code"),
    [(True, "api_error", "internal_error"), (False, "overloaded_error", "engine_unavailable")],
)
async def test_an_error_event_keeps_vllm_s_text_to_the_log(is_alive: bool, kind: str, code: str) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    translated = translate_errors(send, lambda: is_alive)
    await translated({"type": "http.response.start", "status": 200, "headers": []})
    await translated({"type": "http.response.body", "body": EVENT + b"event: x\n\n", "more_body": True})
    first, data, _, rest, *_ = sent[1]["body"].split(b"\n")
    told: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    assert (first, told["type"], told["error"]["type"]) == (b"event: error", "error", kind)
    assert (told["error"]["code"], rest) == (code, b"event: x")
    assert "validation" not in told["error"]["message"]
