"""Tenants on a real server: keys from the command, tokens counted by vLLM, the prefix cache, ports."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.server.client.process import COMMAND
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.guarded_server import GuardedServer

ASKED: dict[str, Any] = {"prompt": "roll table", "max_tokens": 4, "temperature": 0}
KEYS = {
    "acme": ["--adapters", "acme-*"],
    "acme-admin": ["--role", "admin", "--adapters", "acme-*", "--max-adapters", "2"],
    "short": ["--tokens-per-minute", "5"],
}


@pytest.fixture(scope="module")
def secrets(guarded: GuardedServer) -> dict[str, str]:
    """The secret of each key. Two of the keys have an adapter."""
    made = {name: guarded.keys("create", name, *options)["secret"] for name, options in KEYS.items()}
    with guarded.client() as operator:
        body = {"name": "acme-roll", "path": str(ADAPTERS_DIR / "roll")}
        operator.post("/v1/adapters", json=body).raise_for_status()
    return made


def test_the_inference_port_has_nothing_of_administration(guarded: GuardedServer) -> None:
    with guarded.client(admin=False) as operator:
        assert operator.post("/v1/completions", json=ASKED).status_code == 200
        for method, path in (("POST", "/v1/adapters"), ("GET", "/metrics"), ("GET", "/v1/fusion")):
            headers = {"host": guarded.admin_url[7:]}
            assert operator.request(method, path, json={}, headers=headers).status_code == 404


def test_a_key_pays_for_the_tokens_that_vllm_computes(
    guarded: GuardedServer, secrets: dict[str, str]
) -> None:
    with guarded.client(secrets["short"]) as short:
        assert short.post("/v1/completions", json=ASKED).status_code == 200
        assert short.post("/v1/completions", json=ASKED).json()["error"]["param"] == "tokens_per_minute"


def test_the_answer_is_the_same_and_the_prefix_cache_another(
    guarded: GuardedServer, secrets: dict[str, str]
) -> None:
    asked = {"model": "acme-roll", "prompt": "a word " * 40, "max_tokens": 4, "temperature": 0}

    def answered(name: str) -> tuple[str, int]:
        with guarded.client(secrets[name]) as client:
            reply = client.post("/v1/completions", json=asked).raise_for_status().json()
        return reply["choices"][0]["text"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    first, again, other = answered("acme"), answered("acme"), answered("acme-admin")
    assert first[0] == again[0] == other[0]
    assert (first[1], again[1] > 0, other[1]) == (0, True, 0)


def test_every_change_and_refusal_has_a_line(guarded: GuardedServer, secrets: dict[str, str]) -> None:
    with guarded.client(secrets["acme-admin"]) as admin:
        sent = {"x-request-id": "line-1"}
        admin.post("/v1/adapters", json={"name": "evil", "path": "/etc"}, headers=sent)
    httpx.post(f"{guarded.url}/v1/completions", json=ASKED, headers={"x-request-id": "line-2"})
    text = (guarded.home / "data" / "audit.jsonl").read_text()
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    assert (lines["line-1"]["key_name"], lines["line-1"]["status"]) == ("acme-admin", 403)
    assert (lines["line-2"]["key"], lines["line-2"]["status"]) == (None, 401)
    assert not any(secret in text for secret in secrets.values())


def test_a_revoked_key_is_nobody_s(guarded: GuardedServer) -> None:
    secret = guarded.keys("create", "leaver")["secret"]
    command = [COMMAND, "keys", "revoke", "leaver", "--data-dir", str(guarded.home / "data")]
    subprocess.run(command, check=True, capture_output=True)
    headers = {"authorization": f"Bearer {secret}"}
    assert httpx.get(f"{guarded.url}/v1/models", headers=headers).status_code == 401


def test_a_server_for_others_does_not_start_without_a_key(tmp_path: Path) -> None:
    command = [COMMAND, "serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "keys create" in ended.stderr
