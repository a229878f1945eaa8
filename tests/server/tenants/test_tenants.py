"""Tenants over HTTP without an engine: a key sees only its own adapters, and its quotas hold."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import OPERATOR_KEY, AppWithoutEngine, app_without_engine

ASKED: dict[str, Any] = {"prompt": "roll table", "max_tokens": 4, "temperature": 0}
KEYS: dict[str, dict[str, Any]] = {
    "acme": {"adapters": ("acme-*",)},
    "acme-admin": {"role": "admin", "adapters": ("acme-*",), "quotas": {"adapters": 2}},
    "slow": {"quotas": {"requests_per_minute": 3}},
    "builder": {"quotas": {"builds_per_hour": 1}},
    "checker": {"role": "admin", "adapters": ("checked",), "quotas": {"builds_per_hour": 1}},
    "narrow": {"quotas": {"in_flight": 2, "tokens_per_minute": 30000}},
    "watcher": {"role": "monitor"},
}


class Tenants:
    """The app and a client for each key."""

    def __init__(self, app: AppWithoutEngine) -> None:
        self.app = app
        self.secrets = {name: app.create_key(name, **options) for name, options in KEYS.items()}

    def by(self, name: str | None, admin: bool = True) -> httpx.Client:
        return self.app.client(OPERATOR_KEY if name is None else self.secrets[name], admin=admin)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with app_without_engine(tmp_path_factory.mktemp("tenants"), api_keys=[OPERATOR_KEY]) as app:
        made = Tenants(app)
        with made.by(None) as operator:
            for name, source in (("acme-roll", "roll"), ("other-upper", "upper")):
                body = {"name": name, "path": str(ADAPTERS_DIR / source)}
                operator.post("/v1/adapters", json=body).raise_for_status()
            for name, model in (("mixed", "acme-roll+other-upper"), ("acme-own", "acme-roll:0.5")):
                operator.post("/v1/compositions", json={"name": name, "model": model}).raise_for_status()
        yield made


def ids(client: httpx.Client, path: str, field: str = "id") -> list[str]:
    return [one[field] for one in client.get(path).raise_for_status().json()["data"]]


def test_a_tenant_finds_only_their_own(tenants: Tenants) -> None:
    with tenants.by("acme") as acme:
        assert ids(acme, "/v1/models") == ["testbed-base", "acme-roll", "acme-own"]
        assert ids(acme, "/v1/adapters", "name") == ["acme-roll"]
        assert ids(acme, "/v1/compositions", "name") == ["acme-own"]
        assert acme.get("/v1/models/other-upper").status_code == 404
        assert acme.get("/v1/models/acme-roll@1:0.5").json()["id"] == "acme-roll@1:0.5"
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
            card = acme.get(f"/v1/models/{place.format(name)}")
            told.append([(r.status_code, r.text.replace(name, "X")) for r in (reply, shown, card)])
        assert told[0] == told[1]
        assert [status for status, _ in told[0]] == [404, 404, 404]
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
            reply = operator.request(method, path, json={}, headers={"host": tenants.app.admin_url[7:]})
            assert reply.status_code == 404


def test_more_than_the_quota_is_429_and_says_when_to_come_back(tenants: Tenants) -> None:
    with tenants.by("slow") as slow, tenants.by("builder") as builder:
        replies = [slow.get("/v1/models") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 20
        assert replies[-1].json()["error"]["type"] == "rate_limit_error"
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


def test_every_change_and_refusal_has_a_line(tenants: Tenants) -> None:
    with tenants.by("acme-admin") as admin:
        sent = {"x-request-id": "line-1"}
        admin.post("/v1/adapters", json={"name": "evil", "path": "/etc"}, headers=sent)
    with tenants.app.client() as stranger:
        refused = stranger.post("/v1/completions", json=ASKED, headers={"x-request-id": "line-2"})
        assert refused.headers["www-authenticate"] == "Bearer"
    lines = tenants.app.audit_lines()
    assert (lines["line-1"]["key_name"], lines["line-1"]["status"]) == ("acme-admin", 403)
    assert (lines["line-2"]["key"], lines["line-2"]["status"]) == (None, 401)
    assert not any(secret in str(lines) for secret in tenants.secrets.values())


def test_a_line_says_what_was_changed_and_nothing_more(tenants: Tenants) -> None:
    offer = {"name": "written-down", "path": str(ADAPTERS_DIR / "wrap")}
    saved = {"name": "both", "model": "acme-roll+written-down"}
    with tenants.by(None) as operator:
        made = operator.post("/v1/adapters", json=offer, headers={"x-request-id": "line-3"}).json()
        operator.post("/v1/compositions", json=saved, headers={"x-request-id": "line-4"})
        operator.get("/v1/adapters", headers={"x-request-id": "line-5"})
        operator.delete("/v1/compositions/both", headers={"x-request-id": "line-6"})
        unload = {"lora_name": "written-down"}
        operator.post("/v1/unload_lora_adapter", json=unload, headers={"x-request-id": "line-7"})
    lines, changed = tenants.app.audit_lines(), ("adapter", "version", "digest", "composition")
    told = {name: {f: line[f] for f in changed if f in line} for name, line in lines.items()}
    assert told["line-3"] == {"adapter": "written-down", "version": 1, "digest": made["digest"]}
    assert told["line-4"] == {"composition": "both"}
    assert (lines["line-6"]["method"], told["line-6"]) == ("DELETE", {})
    assert told["line-7"] == {"adapter": "written-down"}
    assert "line-5" not in lines


def test_a_revoked_key_is_nobody_s(tenants: Tenants) -> None:
    with tenants.app.client(tenants.app.create_key("leaver")) as leaver:
        assert leaver.get("/v1/models").status_code == 200
        tenants.app.keys.revoke("leaver")
        assert leaver.get("/v1/models").status_code == 401
