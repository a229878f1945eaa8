"""Tenants on the real server: to each only their own exists, within their quotas, and all of it is written
down."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.client.process import COMMAND, free_port
from tests.running_server import RunningServer
from training.testbed.paths import ADAPTERS_DIR

OPERATOR = {"authorization": "Bearer the-operator-s"}
ASKED: dict[str, Any] = {"prompt": "roll table", "max_tokens": 4, "temperature": 0}
KEYS = {
    "acme": ["--adapters", "acme-*"],
    "acme-admin": ["--role", "admin", "--adapters", "acme-*", "--max-adapters", "2"],
    "slow": ["--requests-per-minute", "3"],
    "short": ["--tokens-per-minute", "5"],
    "builder": ["--builds-per-hour", "1"],
    "checker": ["--role", "admin", "--adapters", "checked", "--builds-per-hour", "1"],
    "narrow": ["--in-flight", "2", "--tokens-per-minute", "30000"],
    "watcher": ["--role", "monitor"],
}


class Tenants:
    """The server and a client for each key."""

    def __init__(self, server: RunningServer, home: Path, admin_port: int) -> None:
        self.home = home
        self.main, self.admin = server.url, f"http://127.0.0.1:{admin_port}"
        self.secrets = {
            name: keys(home, "create", name, *options)["secret"] for name, options in KEYS.items()
        }

    def by(self, name: str | None, admin: bool = True) -> httpx.Client:
        headers = OPERATOR if name is None else {"authorization": f"Bearer {self.secrets[name]}"}
        return httpx.Client(base_url=self.admin if admin else self.main, headers=headers, timeout=60)


def keys(home: Path, *arguments: str) -> Any:
    command = [COMMAND, "keys", *arguments, "--data-dir", str(home / "data"), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    home, port = tmp_path_factory.mktemp("tenants"), free_port()
    options = ["--adapter-root", str(ADAPTERS_DIR), "--api-key", "the-operator-s", "--admin-port", str(port)]
    options.append("--enable-prompt-tokens-details")
    server = RunningServer.start(home / "data", home / "log", options)
    try:
        server.wait_until_ready()
        made = Tenants(server, home, port)
        with made.by(None) as operator:
            for name, source in (("acme-roll", "roll"), ("other-upper", "upper")):
                body = {"name": name, "path": str(ADAPTERS_DIR / source)}
                operator.post("/v1/adapters", json=body).raise_for_status()
            for name, model in (("mixed", "acme-roll+other-upper"), ("acme-own", "acme-roll:0.5")):
                operator.post("/v1/compositions", json={"name": name, "model": model}).raise_for_status()
        yield made
    finally:
        server.stop()


def ids(client: httpx.Client, path: str, field: str = "id") -> list[str]:
    return [one[field] for one in client.get(path).raise_for_status().json()["data"]]


def test_a_tenant_finds_only_their_own(tenants: Tenants) -> None:
    with tenants.by("acme") as acme:
        assert ids(acme, "/v1/models") == ["testbed-base", "acme-roll", "acme-own"]
        assert ids(acme, "/v1/adapters", "name") == ["acme-roll"]
        assert ids(acme, "/v1/compositions", "name") == ["acme-own"]
        assert acme.get("/v1/models/other-upper").status_code == 404
        assert acme.post("/v1/completions", json=ASKED | {"model": "acme-roll"}).status_code == 200


@pytest.mark.parametrize(
    "place", ["{}", "{}@1", "acme-roll+{}", "{}+nobody", "nobody+{}", "svd({}+acme-roll)"]
)
def test_what_belongs_to_others_is_as_if_it_were_not_there(tenants: Tenants, place: str) -> None:
    with tenants.by("acme") as acme:
        told = []
        for name in ("other-upper", "other-absent"):
            reply = acme.post("/v1/completions", json=ASKED | {"model": place.format(name)})
            shown = acme.get(f"/v1/adapters/{name}")
            told.append([(r.status_code, r.text.replace(name, "X")) for r in (reply, shown)])
        assert told[0] == told[1]
        assert told[0][0][0] == 404
        unknown, hidden = (
            acme.post("/v1/completions", json=ASKED | {"model": m}) for m in ("absent", "mixed")
        )
        assert hidden.text == unknown.text.replace("absent", "mixed")


def test_an_admin_of_some_names_cannot_touch_others(tenants: Tenants) -> None:
    upper = {"path": str(ADAPTERS_DIR / "upper")}
    with tenants.by("acme-admin") as admin:
        assert (
            admin.post("/v1/adapters", json=upper | {"name": "evil"}).json()["error"]["code"]
            == "name_not_allowed"
        )
        assert admin.delete("/v1/adapters/other-upper").status_code == 404
        assert admin.put("/v1/adapters/other-upper/aliases/prod", json={"version": 1}).status_code == 404
        assert admin.delete("/v1/adapters/acme-roll?cascade=true").status_code == 403
        assert admin.delete("/v1/compositions/mixed").status_code == 403
        load = {"lora_name": "other-upper", "lora_path": upper["path"]}
        assert admin.post("/v1/load_lora_adapter", json=load).status_code == 403
        assert admin.post("/v1/unload_lora_adapter", json={"lora_name": "other-upper"}).status_code == 404
        for method, path in (("PUT", "/v1/fusion"), ("POST", "/v1/benchmarks"), ("GET", "/v1/residency")):
            assert admin.request(method, path, json={}).status_code == 403
        assert admin.post("/v1/adapters", json=upper | {"name": "acme-upper"}).status_code == 201
        refused = admin.post("/v1/adapters", json={"name": "acme-dbl", "path": str(ADAPTERS_DIR / "dbl")})
        assert (refused.status_code, refused.json()["error"]["param"]) == (429, "adapters")
        assert refused.headers["x-should-retry"] == "false"
        assert admin.post("/v1/adapters", json=upper | {"name": "acme-upper"}).status_code == 200
        assert admin.delete("/v1/adapters/acme-upper").status_code == 204


def test_roles_end_where_they_end(tenants: Tenants) -> None:
    with tenants.by("acme") as acme, tenants.by("watcher") as watcher:
        assert acme.post("/v1/adapters", json={}).json()["error"]["type"] == "permission_error"
        assert acme.get("/metrics").status_code == 403
        assert watcher.get("/metrics").status_code == 200
        assert watcher.post("/v1/completions", json=ASKED).status_code == 403


def test_the_inference_port_has_nothing_of_administration(tenants: Tenants) -> None:
    with tenants.by(None, admin=False) as operator:
        assert operator.post("/v1/completions", json=ASKED).status_code == 200
        for method, path in (("POST", "/v1/adapters"), ("GET", "/metrics"), ("GET", "/v1/fusion")):
            reply = operator.request(method, path, json={}, headers={"host": tenants.admin[7:]})
            assert reply.status_code == 404


def test_more_than_the_quota_is_429_and_says_when_to_come_back(tenants: Tenants) -> None:
    with tenants.by("slow") as slow, tenants.by("short") as short, tenants.by("builder") as builder:
        replies = [slow.get("/v1/models") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 20
        assert replies[-1].json()["error"]["type"] == "rate_limit_error"
        assert short.post("/v1/completions", json=ASKED).status_code == 200
        assert short.post("/v1/completions", json=ASKED).json()["error"]["param"] == "tokens_per_minute"
        models = [f"svd(acme-roll:0.{n}+other-upper,rank=4)" for n in (1, 2, 3)]
        codes = [builder.post("/v1/completions", json=ASKED | {"model": m}).status_code for m in models]
        assert codes[-1] == 429


def test_a_request_for_many_answers_is_as_many_requests(tenants: Tenants) -> None:
    with tenants.by("narrow") as narrow:
        for many in ({"n": 3, "temperature": 1}, {"prompt": ["a", "b", "c"]}):
            told = narrow.post("/v1/completions", json=ASKED | many)
            assert (told.status_code, told.json()["error"]["param"]) == (429, "in_flight")
            assert told.headers["x-should-retry"] == "false"
        assert narrow.post("/v1/completions", json=ASKED | {"prompt": ["a", "b"]}).status_code == 200


def test_a_body_nobody_can_read_is_refused_and_paid_for(tenants: Tenants) -> None:
    with tenants.by("narrow") as narrow:
        huge = ASKED | {"prompt": "a" * (2 << 20)}
        assert narrow.post("/v1/completions", json=huge).status_code == 413
        refused = narrow.post("/v1/completions", json=ASKED)
        assert refused.json()["error"]["param"] == "tokens_per_minute"


def test_to_have_an_adapter_checked_is_a_build(tenants: Tenants) -> None:
    body = {"name": "checked", "path": str(ADAPTERS_DIR / "roll")}
    with tenants.by("checker") as checker:
        told = [checker.post("/v1/adapters", json=body).status_code for _ in range(2)]
        assert told == [201, 429]
        assert checker.delete("/v1/adapters/checked").status_code == 204


def test_the_answer_is_the_same_and_the_prefix_cache_another(tenants: Tenants) -> None:
    asked = {"model": "acme-roll", "prompt": "a word " * 40, "max_tokens": 4, "temperature": 0}

    def answered(name: str | None) -> tuple[str, int]:
        with tenants.by(name) as client:
            reply = client.post("/v1/completions", json=asked).raise_for_status().json()
        return reply["choices"][0]["text"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    first, again, other = answered("acme"), answered("acme"), answered("acme-admin")
    assert first[0] == again[0] == other[0]
    assert (first[1], again[1] > 0, other[1]) == (0, True, 0)


def test_every_change_and_refusal_has_a_line(tenants: Tenants) -> None:
    with tenants.by("acme-admin") as admin:
        sent = {"x-request-id": "line-1"}
        admin.post("/v1/adapters", json={"name": "evil", "path": "/etc"}, headers=sent)
    httpx.post(f"{tenants.main}/v1/completions", json=ASKED, headers={"x-request-id": "line-2"})
    text = (tenants.home / "data" / "audit.jsonl").read_text()
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    assert (lines["line-1"]["key_name"], lines["line-1"]["status"]) == ("acme-admin", 403)
    assert (lines["line-2"]["key"], lines["line-2"]["status"]) == (None, 401)
    assert not any(secret in text for secret in tenants.secrets.values())


def test_a_revoked_key_is_nobody_s(tenants: Tenants) -> None:
    secret = keys(tenants.home, "create", "leaver")["secret"]
    command = [COMMAND, "keys", "revoke", "leaver", "--data-dir", str(tenants.home / "data")]
    subprocess.run(command, check=True, capture_output=True)
    headers = {"authorization": f"Bearer {secret}"}
    assert httpx.get(f"{tenants.main}/v1/models", headers=headers).status_code == 401


def test_a_server_for_others_does_not_start_without_a_key(tmp_path: Path) -> None:
    command = [COMMAND, "serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "keys create" in ended.stderr
