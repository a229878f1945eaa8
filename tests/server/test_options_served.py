"""Options of vLLM on a real server: what is accepted has its effect."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

KEY, VLLM_KEY = "one-of-ours", "the-key-of-vllm"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
PLUGIN = """
from vllm.tool_parsers import ToolParserManager
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser

@ToolParserManager.register_module("of-the-user")
class OfTheUser(Hermes2ProToolParser):
    pass
"""
PAGE = {"origin": "http://localhost:3000"}


@dataclass(frozen=True)
class Served:
    running: RunningServer
    log: Path
    options: list[str]

    def client(self, key: str = KEY) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.running.url, headers=headers, timeout=60)


def options(home: Path) -> list[str]:
    (home / "template.jinja").write_text(TEMPLATE)
    (home / "plugin.py").write_text(PLUGIN)
    (home / "options.yaml").write_text(
        "max-loras: 4\nresponse-role: narrator\nfingerprint-mode: custom\nfingerprint-value: from-the-file\n"
    )
    upper = json.dumps({"name": "second", "path": str(ADAPTERS_DIR / "upper"), "base_model_name": "b"})
    return [
        *("--config", str(home / "options.yaml"), "--fingerprint-value", "from-the-command"),
        *("--served-model-name", "a", "b", "--api-key", KEY, "another"),
        *("--lora-modules", f"first={ADAPTERS_DIR / 'roll'}", upper),
        *("--allowed-origins", '["http://localhost:3000"]', "--root-path", "/llm"),
        *("--chat-template", str(home / "template.jinja")),
        *("--tool-parser-plugin", str(home / "plugin.py"), "--tool-call-parser", "of-the-user"),
        *("--enable-auto-tool-choice", "--enable-force-include-usage", "--enable-prompt-tokens-details"),
        *("--return-tokens-as-token-ids", "--max-logprobs", "3", "--enable-tokenizer-info-endpoint"),
        *("--enable-log-requests", "--disable-access-log-for-endpoints", "/v1/models"),
        *("--override-generation-config", '{"temperature": 0.0, "max_new_tokens": 3}'),
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("options")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", VLLM_KEY)
        running = RunningServer.start(home / "data", home / "log", options(home))
    with running:
        running.wait_until_ready()
        yield Served(running, home / "log", options(home))


def ask(client: httpx.Client, model: str, **fields: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "roll table"}], **fields}
    answered = client.post("/v1/chat/completions", json=body)
    assert answered.status_code == 200, answered.text
    return answered.json()


@pytest.mark.parametrize("key", [KEY, "another", VLLM_KEY])
def test_every_key_opens_every_route(served: Served, key: str) -> None:
    with served.client(key) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/adapters").status_code == 200
        assert ask(client, "a", max_tokens=2)["model"] == "a"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/adapters", "/v1/fusion", "/metrics", "/llm/v1/models"])
def test_without_one_every_route_is_closed(served: Served, path: str) -> None:
    assert httpx.get(f"{served.running.url}{path}").status_code == 401
    assert httpx.post(f"{served.running.url}/v1/chat/completions", json={}).status_code == 401


def test_names_and_preloaded_adapters_are_models_and_answer(served: Served) -> None:
    with served.client() as client:
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == [
            "a",
            "b",
            "first",
            "second",
        ]
        replies = {
            model: ask(client, model, max_tokens=8)["model"] for model in ("a", "b", "first", "b:second")
        }
        versions = {card["name"]: card["version"] for card in client.get("/v1/adapters").json()["data"]}
    assert replies == {"a": "a", "b": "a", "first": "first@1", "b:second": "second@1"}
    assert versions == {"first": 1, "second": 1}


def test_the_file_is_read_and_the_command_line_wins(served: Served) -> None:
    with served.client() as client:
        reply = ask(client, "a", max_tokens=2)
        slots = client.get("/v1/residency").json()
    assert reply["choices"][0]["message"]["role"] == "narrator"
    assert reply["system_fingerprint"] == "from-the-command"
    assert slots["active"]["slots"] == 4


def test_vllms_handlers_have_their_options(served: Served) -> None:
    with served.client() as client:
        reply = ask(client, "a", logprobs=True, top_logprobs=3)
        text = client.post(
            "/tokenize", json={"model": "b", "messages": [{"role": "user", "content": "ab"}]}
        ).json()
        plain = client.post("/tokenize", json={"model": "a", "prompt": "ab"}).json()
        many = client.post("/v1/completions", json={"model": "a", "prompt": "x", "logprobs": 4})
        stream = client.post(
            "/v1/completions", json={"model": "first", "prompt": "roll", "stream": True}
        ).text
    tokens = [entry["token"] for entry in reply["choices"][0]["logprobs"]["content"]]
    assert reply["usage"]["completion_tokens"] <= 3
    assert all(token.startswith("token_id:") for token in tokens)
    assert "prompt_tokens_details" in reply["usage"]
    assert text["tokens"][-1] == plain["tokens"][-1]
    assert many.status_code == 400
    assert '"usage":{' in stream.replace(" ", "")


def test_a_page_of_the_origin_may_stream(served: Served) -> None:
    body = {"model": "first", "messages": [{"role": "user", "content": "roll table"}], "stream": True}
    with (
        served.client() as client,
        client.stream("POST", "/llm/v1/chat/completions", json=body, headers=PAGE) as answered,
    ):
        assert answered.headers["access-control-allow-origin"] == PAGE["origin"]
        assert "x-lora-composition" in answered.headers["access-control-expose-headers"]
        assert "data: [DONE]" in list(answered.iter_lines())


def test_requests_are_logged_as_asked(served: Served) -> None:
    lines = served.log.read_text().splitlines()
    assert any("request_logger" in line and "Received request" in line for line in lines)
    assert not any("route=/v1/models " in line for line in lines)
    assert "Found duplicate keys" not in served.log.read_text()
