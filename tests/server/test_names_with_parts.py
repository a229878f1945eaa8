"""Names with several parts, such as `org/sql`, work wherever a name does."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from typer.testing import CliRunner, Result

from lora_compose.adapters.command_line import create_app
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import OPERATOR_KEY, AppWithoutEngine, app_without_engine
from tests.server.test_refusals import assert_refused

ROLL, UPPER = ADAPTERS_DIR / "roll", ADAPTERS_DIR / "upper"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    with app_without_engine(tmp_path_factory.mktemp("parts"), api_keys=[OPERATOR_KEY]) as made:
        with made.client(OPERATOR_KEY) as http:
            body = {"name": "org/roll", "path": str(ROLL), "alias": "prod"}
            http.post("/v1/adapters", json=body).raise_for_status()
            loaded = {"lora_name": "acme/eu/upper", "lora_path": str(UPPER)}
            http.post("/v1/load_lora_adapter", json=loaded).raise_for_status()
        yield made


@pytest.fixture
def http(app: AppWithoutEngine) -> Iterator[httpx.Client]:
    with app.client(OPERATOR_KEY) as client:
        yield client


def answered_by(http: httpx.Client, **body: object) -> str:
    reply = http.post("/v1/completions", json={"prompt": "x"} | body).raise_for_status().json()
    return str(reply["model"])


def test_an_uploaded_adapter_may_have_such_a_name(http: httpx.Client) -> None:
    files = {
        name: (ROLL / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    reply = http.post("/v1/adapters", data={"name": "up/loaded"}, files=files)
    assert (reply.status_code, reply.json()["id"]) == (201, "up/loaded@1")
    assert http.delete("/v1/adapters/up/loaded").status_code == 204


@pytest.mark.parametrize(
    ("model", "canonical"),
    [
        ("org/roll", "org/roll@1"),
        ("org/roll@prod", "org/roll@1"),
        ("testbed-base:org/roll@1", "org/roll@1"),
        ("org/roll:0.5+acme/eu/upper", "acme/eu/upper@1+org/roll@1:0.5"),
        ("ties(org/roll+acme/eu/upper;density=0.5)", "ties(acme/eu/upper@1+org/roll@1,density=0.5)"),
    ],
)
@pytest.mark.parametrize("safe", ["", "/+:@(),=;*"])
def test_requests_and_cards_know_the_name(http: httpx.Client, model: str, canonical: str, safe: str) -> None:
    assert answered_by(http, model=model) == canonical
    for name in (model, canonical):
        card = http.get("/v1/models/" + quote(name, safe=safe)).raise_for_status().json()
        assert card["id"] == name


def test_every_form_of_a_composition_takes_the_name(http: httpx.Client) -> None:
    assert answered_by(http, adapters=[{"name": "org/roll", "weight": 0.5}]) == "org/roll@1:0.5"
    assert answered_by(http, lora=[{"id": "org/roll", "scale": 1}]) == "org/roll@1"
    merged = {"ids": ["org/roll"], "weights": [1], "merge_strategy": "linear"}
    assert answered_by(http, merged_adapters=merged) == "linear(org/roll@1)"


@pytest.mark.parametrize("quoted", ["org/roll", "org%2Froll"])
def test_the_routes_below_a_name_are_reached(http: httpx.Client, quoted: str) -> None:
    assert http.get(f"/v1/adapters/{quoted}").json()["name"] == "org/roll"
    assert http.get(f"/v1/adapters/{quoted}@1").json()["id"] == "org/roll@1"
    moved = http.put(f"/v1/adapters/{quoted}/aliases/next", json={"version": 1})
    assert moved.json()["aliases"] == ["next", "prod"]
    assert http.delete(f"/v1/adapters/{quoted}/aliases/next").status_code == 204
    assert http.put(f"/v1/adapters/{quoted}/pin").status_code == 200
    assert http.delete(f"/v1/adapters/{quoted}/pin").status_code == 204
    assert http.get(f"/v1/adapters/{quoted}").status_code == 200


def test_a_saved_composition_may_have_such_a_name(http: httpx.Client) -> None:
    body = {"name": "duo/eu", "model": "org/roll+acme/eu/upper"}
    http.post("/v1/compositions", json=body).raise_for_status()
    assert http.get("/v1/compositions/duo%2Feu").json()["name"] == "duo/eu"
    assert answered_by(http, model="duo/eu") == "acme/eu/upper@1+org/roll@1"
    assert_refused(http.delete("/v1/adapters/org/roll"), 409, "in_use")
    assert http.delete("/v1/compositions/duo/eu").status_code == 204


@pytest.mark.parametrize(
    "path", ["org/roll/pin/x", "org//roll", "org/../roll", "org/./roll", "org/roll/", "org/roll/pinned/"]
)
def test_no_other_path_reaches_an_adapter(http: httpx.Client, path: str) -> None:
    request = httpx.Request("DELETE", http.base_url, extensions={"target": f"/v1/adapters/{path}".encode()})
    request.headers["authorization"] = f"Bearer {OPERATOR_KEY}"
    assert http.send(request).status_code == 404
    assert {one["name"] for one in http.get("/v1/adapters").json()["data"]} == {"org/roll", "acme/eu/upper"}


def test_a_key_with_a_prefix_sees_its_part_and_no_pin(app: AppWithoutEngine) -> None:
    with app.client(app.create_key("acme", role="admin", adapters=("acme/*",))) as http:
        assert [one["id"] for one in http.get("/v1/adapters").json()["data"]] == ["acme/eu/upper@1"]
        assert http.get("/v1/adapters/acme/eu/upper").status_code == 200
        assert_refused(http.get("/v1/adapters/org/roll"), 404, "model_not_found")
        assert_refused(http.delete("/v1/adapters/acme/eu/upper/pin"), 403, "permission_denied")
        refused = http.post("/v1/adapters", json={"name": "acmex/a", "path": str(ROLL)})
        assert_refused(refused, 403, "name_not_allowed")


def test_metrics_have_the_pattern_of_the_route_and_the_name_of_the_adapter(http: httpx.Client) -> None:
    answered_by(http, model="org/roll")
    http.get("/v1/adapters/org/roll")
    text = http.get("/metrics").text
    assert 'lora_compose_http_requests_total{route="/v1/adapters/{reference}",status="200"}' in text
    assert 'lora_compose_adapter_requests_total{adapter="org/roll"}' in text
    assert "/v1/adapters/org" not in text


def test_the_commands_take_the_name(app: AppWithoutEngine, tmp_path: Path) -> None:
    to = ["--url", app.admin_url, "--api-key", OPERATOR_KEY]

    def run(*words: object) -> Result:
        return CliRunner().invoke(create_app(), [*map(str, words)])

    assert run("adapters", "add", "cli/roll", ROLL, *to).exit_code == 0
    assert run("adapters", "alias", "cli/roll@1", "best", *to).exit_code == 0
    assert '"cli/roll@1"' in run("adapters", "show", "cli/roll@best", "--json", *to).stdout
    assert run("adapters", "remove", "cli/roll", *to).exit_code == 0
    out = tmp_path / "out"
    named = ["--adapter", f"org/roll={ROLL}", "--adapter", f"org/upper={UPPER}"]
    made = run("compose", "svd(org/roll+org/upper;rank=4)", out, *named, "--json")
    assert made.exit_code == 0, made.output
    assert (out / "adapter_model.safetensors").exists()
