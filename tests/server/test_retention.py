"""--keep-versions and ttl_seconds bound what a training loop leaves behind. What is needed stays."""

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.server.config import ServerConfig
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine

PATIENCE = 20.0


def step(home: Path, number: int) -> Path:
    """The policy after this step of a training loop: the shipped adapter with another lora_alpha."""
    policy = home / "policy"
    if not policy.exists():
        shutil.copytree(ADAPTERS_DIR / "roll", policy)
    config = json.loads((policy / "adapter_config.json").read_text())
    (policy / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 16 + number / 100}))
    return policy


def load(client: httpx.Client, home: Path, number: int, **fields: Any) -> None:
    body = {"lora_name": "policy", "lora_path": str(step(home, number)), "load_inplace": True, **fields}
    client.post("/v1/load_lora_adapter", json=body).raise_for_status()


def versions(client: httpx.Client) -> list[int]:
    return sorted(card["version"] for card in client.get("/v1/adapters").json()["data"])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stored(home: Path) -> int:
    return len(list((home / "data" / "store").iterdir()))


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": "x"})


def test_a_loop_leaves_the_newest_versions_and_what_is_needed(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, keep_versions=2) as app, app.client() as client:
        for number in range(1, 4):
            load(client, tmp_path, number)
        client.put("/v1/adapters/policy/aliases/prod", json={"version": 2}).raise_for_status()
        client.post("/v1/compositions", json={"name": "best", "model": "policy@3"}).raise_for_status()
        client.put("/v1/adapters/policy@3/pin").raise_for_status()
        load(client, tmp_path, 4)
        client.put("/v1/fusion", json={"model": "policy@4"}).raise_for_status()
        child = {"name": "child", "path": str(ADAPTERS_DIR / "upper"), "lineage": {"parents": ["policy@4"]}}
        client.post("/v1/adapters", json=child).raise_for_status()
        client.delete("/v1/fusion").raise_for_status()
        for number in range(5, 9):
            load(client, tmp_path, number)
        assert versions(client) == [1, 2, 3, 4, 7, 8]  # 1 is child@1
        assert stored(tmp_path) == 6
        assert ask(client, "policy").json()["model"] == "policy@8"
        gone = ask(client, "policy@5")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        assert "--keep-versions" in gone.json()["error"]["message"]
        removed = [line for line in audit(app.data_dir) if line.get("event") == "version_removed"]
        assert [(line["adapter"], line["version"], line["reason"]) for line in removed] == [
            ("policy", number, "superseded") for number in (1, 5, 6)
        ]
        assert 'lora_compose_retired_versions_total{reason="superseded"} 3.0' in client.get("/metrics").text
    with app_without_engine(tmp_path, keep_versions=1) as app, app.client() as client:
        until(lambda: versions(client) == [1, 2, 3, 4, 8])


def audit(data_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data_dir / "audit.jsonl").read_text().splitlines()]


def test_loading_in_place_replaces_the_version_before(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        load(client, tmp_path, 1, load_inplace=False)
        load(client, tmp_path, 2, load_inplace=False)
        client.put("/v1/adapters/policy/aliases/prod", json={"version": 2}).raise_for_status()
        for number in (3, 4, 4, 5):
            load(client, tmp_path, number)
        assert versions(client) == [1, 2, 5]  # 2 has an alias, and 1 was not replaced
        assert "load_inplace" in ask(client, "policy@3").json()["error"]["message"]
        assert ask(client, "policy").json()["model"] == "policy@5"


def test_a_version_expires_also_while_idle_and_after_a_restart(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        load(client, tmp_path, 1, ttl_seconds=1, load_inplace=False)
        load(client, tmp_path, 2, ttl_seconds=3600, load_inplace=False)
        until(lambda: versions(client) == [2])
        assert "expired" in ask(client, "policy@1").json()["error"]["message"]
        assert ask(client, "policy").json()["model"] == "policy@2"
        until(lambda: stored(tmp_path) == 1)
        upload = {"name": "policy", "path": str(step(tmp_path, 2)), "ttl_seconds": 1}
        card = client.post("/v1/adapters", json=upload).json()
        assert card["id"] == "policy@2"
        assert abs(card["expires_at"] - time.time()) < 10
    time.sleep(1)
    with app_without_engine(tmp_path) as app, app.client() as client:
        until(lambda: versions(client) == [])
        gone = ask(client, "policy").json()["error"]
        assert gone["code"] == "model_not_found"
        assert "policy@2 was removed" in gone["message"]
        load(client, tmp_path, 3)
        assert ask(client, "policy").json()["model"] == "policy@3"
        client.delete("/v1/adapters/policy").raise_for_status()
        assert ask(client, "policy").json()["error"]["message"] == "There is no adapter 'policy'."


def test_an_expired_version_stays_while_something_needs_it(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        load(client, tmp_path, 1, ttl_seconds=1)
        client.post("/v1/compositions", json={"name": "best", "model": "policy"}).raise_for_status()
        time.sleep(1.5)
        assert ask(client, "best").json()["model"] == "policy@1"
        client.delete("/v1/compositions/best").raise_for_status()
        until(lambda: versions(client) == [])


NO_TTL = [0, -1, 1.5, "60", True, 1e400, 10**12, [], {}]


def test_a_ttl_that_is_not_a_number_of_seconds_is_refused(tmp_path: Path) -> None:
    path = str(step(tmp_path, 1))
    bodies = (
        ("/v1/adapters", {"name": "policy", "path": path}),
        ("/v1/load_lora_adapter", {"lora_name": "policy", "lora_path": path}),
    )
    with app_without_engine(tmp_path) as app, app.client() as client:
        for value, (url, body) in itertools.product(NO_TTL, bodies):
            content = json.dumps(body | {"ttl_seconds": value})
            reply = client.post(url, content=content, headers={"content-type": "application/json"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_ttl")
            assert reply.json()["error"]["param"] == "ttl_seconds"
        assert versions(client) == []


def test_an_upload_can_expire(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        policy = step(tmp_path, 1)
        files = {path.name: path.read_bytes() for path in policy.iterdir() if "adapter" in path.name}
        reply = client.post("/v1/adapters", data={"name": "policy", "ttl_seconds": "60"}, files=files)
        assert reply.json()["expires_at"] is not None
        wrong = client.post("/v1/adapters", data={"name": "policy", "ttl_seconds": "1.5"}, files=files)
        assert wrong.json()["error"]["code"] == "invalid_ttl"


@pytest.mark.parametrize("value", [0, -1, 10**7])
def test_a_number_of_versions_that_cannot_be_kept_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="--keep-versions"):
        ServerConfig(keep_versions=value)
