"""llama.cpp's numbers mean what the client has seen."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from lora_compose.server.compositions import numbers
from lora_compose.server.compositions.numbers import by_number
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine, register_shipped


def listed(client: httpx.Client) -> dict[str, int]:
    return {found["path"]: found["id"] for found in client.get("/lora-adapters").json()}


def asked(client: httpx.Client, *lora: object) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "testbed-base", "prompt": "x", "lora": list(lora)})


def test_a_number_means_the_version_that_was_listed(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        first = listed(client)["roll@1"]
        reply = asked(client, {"id": first, "scale": 0.5}, {"id": listed(client)["upper@1"], "scale": 1})
        assert reply.json()["model"] == "roll@1:0.5+upper@1"
        client.post("/v1/adapters", json={"name": "roll", "path": str(ADAPTERS_DIR / "bang")})
        assert set(listed(client)) == {"roll@2", "upper@1"}
        assert asked(client, {"id": first, "scale": 1}).json()["model"] == "roll@1"
        assert asked(client, {"id": listed(client)["roll@2"], "scale": 1}).json()["model"] == "roll@2"
        client.delete("/v1/adapters/roll", params={"cascade": "true"})
        register_shipped(client, ["roll"])
        gone = asked(client, {"id": first, "scale": 1})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("number", [0, 1, -1, 2**53, 10**400])
def test_a_number_that_was_not_listed_is_no_adapter(plain_http: httpx.Client, number: int) -> None:
    reply = asked(plain_http, {"id": number, "scale": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert len(reply.json()["error"]["message"]) < 200


def test_no_number_is_the_base(plain_http: httpx.Client) -> None:
    assert asked(plain_http).json()["model"] == "testbed-base"


def test_scales_for_all_requests_are_refused(plain_http: httpx.Client) -> None:
    reply = plain_http.post("/lora-adapters", json=[{"id": 0, "scale": 1.0}])
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_offered")
    assert "Send lora in each request" in reply.json()["error"]["message"]


def test_numbers_are_exact_in_every_json_library(plain_http: httpx.Client) -> None:
    found = listed(plain_http)
    assert found["roll@1"] == int(sha256(b"roll@1").hexdigest(), 16) >> (256 - 53)
    assert len(set(found.values())) == len(found)


def test_a_number_of_two_versions_stands_for_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: Any = [SimpleNamespace(id=name) for name in ("a@1", "b@1", "c@1")]
    monkeypatch.setattr(numbers, "number_of", lambda version: version.id == "c@1")
    assert by_number(versions) == {True: versions[2]}
