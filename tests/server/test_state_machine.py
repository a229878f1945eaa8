"""The running server against a simple model: dictionaries, and the answers that its adapters gave alone.

Registering, aliases, removal, streams that outlive their adapters, pins, other stacks, fusing and restoring
happen in any order. An answer is always the one of the adapter in the request.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lora_compose.training.testbed.paths import ADAPTERS_DIR

NAMES = st.sampled_from(["live-a", "live-b"])
CONTENTS = ("roll", "upper", "dbl")
ALIASES = st.sampled_from(["prod", "next"])
ASKED: dict[str, Any] = {
    "prompt": "<s><|user|>roll table<|assistant|>",
    "add_special_tokens": False,
    "max_tokens": 8,
    "temperature": 0,
}
LONG = {"max_tokens": 60, "ignore_eos": True, "stream": True}


@dataclass
class Stream:
    """A stream that has begun, and the complete text that it must have."""

    lines: Iterator[str]
    said: str
    expected: str


class LiveServer(RuleBasedStateMachine):
    http: ClassVar[httpx.Client]
    texts: ClassVar[dict[str, str]]
    long_texts: ClassVar[dict[str, str]]

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, dict[int, str]] = {"live-a": {}, "live-b": {}}
        self.last = {"live-a": 0, "live-b": 0}
        self.aliases: dict[str, dict[str, int]] = {"live-a": {}, "live-b": {}}
        self.streams: list[Stream] = []
        self.open = ExitStack()
        self.fused = False

    @rule(name=NAMES, content=st.sampled_from(CONTENTS))
    def register(self, name: str, content: str) -> None:
        reply = self.http.post("/v1/adapters", json={"name": name, "path": str(ADAPTERS_DIR / content)})
        is_new = content not in self.versions[name].values()
        assert reply.status_code == (201 if is_new else 200), reply.text
        number = reply.json()["version"]
        if is_new:
            assert number > self.last[name], "a number was given twice"
            self.last[name] = number
            self.versions[name][number] = content
        assert self.versions[name][number] == content

    @rule(name=NAMES, alias=ALIASES, which=st.integers(0, 2))
    def point(self, name: str, alias: str, which: int) -> None:
        live = sorted(self.versions[name])
        number = live[which % len(live)] if live else 1
        reply = self.http.put(f"/v1/adapters/{name}/aliases/{alias}", json={"version": number})
        assert reply.status_code == (200 if live else 404)
        if live:
            self.aliases[name][alias] = number

    @rule(name=NAMES, newest_only=st.booleans())
    def remove(self, name: str, newest_only: bool) -> None:
        live = sorted(self.versions[name])
        gone = live[-1:] if newest_only else live
        path = f"/v1/adapters/{name}" + (f"@{gone[0]}" if newest_only and gone else "")
        assert self.http.delete(path).status_code == (204 if gone else 404)
        for number in gone:
            del self.versions[name][number]
        kept = self.aliases[name].items()
        self.aliases[name] = {alias: number for alias, number in kept if number not in gone}

    @rule(name=NAMES, alias=st.none() | ALIASES)
    def ask(self, name: str, alias: str | None) -> None:
        content = self.content(name, alias)
        model = name if alias is None else f"{name}@{alias}"
        reply = self.http.post("/v1/completions", json=ASKED | {"model": model})
        if content is None:
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
        else:
            assert reply.json()["choices"][0]["text"] == self.texts[content]

    @rule(name=NAMES)
    def begin_a_stream(self, name: str) -> None:
        content = self.content(name, None)
        if content is None or len(self.streams) == 3:
            return
        request = self.http.stream("POST", "/v1/completions", json=ASKED | LONG | {"model": name})
        lines = self.open.enter_context(request).iter_lines()
        self.streams.append(Stream(lines, _text(next(lines)), self.long_texts[content]))

    @precondition(lambda self: self.streams)
    @rule()
    def end_a_stream(self) -> None:
        stream = self.streams.pop(0)
        assert stream.said + "".join(map(_text, stream.lines)) == stream.expected

    @rule(name=NAMES, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        reply = self.http.request("PUT" if pinned else "DELETE", f"/v1/adapters/{name}/pin")
        assert (reply.status_code < 300) == bool(self.versions[name])

    @rule(weight=st.integers(1, 999))
    def ask_another(self, weight: int) -> None:
        """A new stack and a merge, which take places in memory."""
        for model in (f"roll:0.{weight:03d}+polite", "linear(dbl+polite,rank=4)"):
            self.http.post("/v1/completions", json=ASKED | {"model": model}).raise_for_status()

    @rule(name=NAMES)
    def fuse(self, name: str) -> None:
        reply = self.http.put("/v1/fusion", json={"model": name})
        assert (reply.status_code < 300) == bool(self.versions[name]), reply.text
        if self.versions[name]:
            self.fused = True
            self.settle("fused")

    @rule()
    def restore(self) -> None:
        self.http.delete("/v1/fusion").raise_for_status()
        self.fused = False
        self.settle("base")

    @invariant()
    def the_registry_is_the_model(self) -> None:
        listed = self.http.get("/v1/adapters").json()["data"]
        mine = {
            (one["name"], one["version"]): one["aliases"] for one in listed if one["name"] in self.versions
        }
        assert mine == {
            (name, number): sorted(alias for alias, to in self.aliases[name].items() if to == number)
            for name, live in self.versions.items()
            for number in live
        }

    def teardown(self) -> None:
        for stream in self.streams:
            for _ in stream.lines:
                pass
        self.open.close()
        if self.fused:
            self.restore()
        for name, live in self.versions.items():
            if live:
                self.http.delete(f"/v1/adapters/{name}").raise_for_status()

    def content(self, name: str, alias: str | None) -> str | None:
        """The source of `name`, or of the version that its alias points to."""
        live = self.versions[name]
        number = max(live, default=0) if alias is None else self.aliases[name].get(alias, 0)
        return live.get(number)

    def settle(self, state: str) -> None:
        deadline = time.monotonic() + 60
        while self.http.get("/v1/fusion").json()["state"] != state:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _text(line: str) -> str:
    """The text of one server-sent event."""
    if not line.startswith("data: {"):
        return ""
    event = json.loads(line[6:])
    assert "error" not in event, event
    text: str = event["choices"][0]["text"]
    return text


@pytest.fixture
def alone(http: httpx.Client) -> None:
    """The answers of each adapter without other requests."""
    LiveServer.http, LiveServer.texts, LiveServer.long_texts = http, {}, {}
    for content in CONTENTS:
        reply = http.post("/v1/completions", json=ASKED | {"model": content}).json()
        LiveServer.texts[content] = reply["choices"][0]["text"]
        body = ASKED | LONG | {"model": content, "stream": False}
        LiveServer.long_texts[content] = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    assert len(set(LiveServer.texts.values())) == len(CONTENTS)


@pytest.mark.usefixtures("alone")
def test_whatever_happened_an_answer_is_the_one_of_what_was_asked_for() -> None:
    run_state_machine_as_test(
        LiveServer,
        settings=settings(
            max_examples=6,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
