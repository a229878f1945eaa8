"""One data directory under several bases: a version is served only on a base that it was admitted for."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.adapters.admission.fingerprint import fingerprint, older_fingerprint
from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine, register_shipped

Weights = dict[str, torch.Tensor]


def base_with(directory: Path, change: Callable[[Weights], Weights]) -> Path:
    """A copy of the embedded base with other weights."""
    shutil.copytree(EMBEDDED_BASE, directory)
    weights = load_file(directory / "model.safetensors")
    save_file(change(weights), directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with the same shapes and other weights."""
    directory = tmp_path_factory.mktemp("bases") / "upgraded"
    return base_with(directory, lambda weights: {name: w * 1.01 for name, w in weights.items()})


def ask(client: httpx.Client, model: Any, **fields: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": "x", **fields})


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


REFUSED = (422, "wrong_base")


def fill(home: Path) -> None:
    """Two adapters, an alias and a composition under the embedded base."""
    with app_without_engine(home) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        client.put("/v1/adapters/roll/aliases/prod", json={"version": 1}).raise_for_status()
        client.post("/v1/compositions", json={"name": "both", "model": "roll+upper"}).raise_for_status()
        client.put("/v1/adapters/roll/pin").raise_for_status()
        client.put("/v1/fusion", json={"model": "roll"}).raise_for_status()


FORMS: list[dict[str, Any]] = [
    *({"model": model} for model in ("roll", "roll@1", "roll@prod", "roll+upper", "both")),
    {"model": "svd(roll+upper,rank=4)"},
    {"model": "upgraded:roll"},
    {"model": "upgraded", "adapters": [{"name": "roll"}]},
    {"model": "upgraded", "lora": [{"id": "roll", "scale": 1.0}]},
    {"model": "upgraded", "merged_adapters": {"ids": ["roll", "upper"], "weights": [1, 1]}},
]


def test_no_form_of_a_request_gets_a_version_of_another_base(tmp_path: Path, upgraded: Path) -> None:
    fill(tmp_path)
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        for form in FORMS:
            reply = ask(client, **form)
            assert code(reply) == REFUSED, form
            assert "--accept-base" in reply.json()["error"]["message"]
        assert ask(client, "upgraded").status_code == 200


def test_what_is_listed_says_what_is_not_served(tmp_path: Path, upgraded: Path) -> None:
    fill(tmp_path)
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["upgraded"]
        for name in ("roll", "roll@1", "both"):
            assert code(client.get(f"/v1/models/{name}")) == (404, "model_not_found")
        cards = client.get("/v1/adapters").json()["data"]
        assert [(card["id"], card["served"], card["base"]) for card in cards] == [
            ("roll@1", False, "testbed-base"),
            ("upper@1", False, "testbed-base"),
        ]
        assert "other_base" in client.get("/v1/adapters/roll").json()["warnings"][0]
        (saved,) = client.get("/v1/compositions").json()["data"]
        assert (saved["name"], saved["resolved"], saved["rank"]) == ("both", None, None)
        assert "lora_compose_other_base_versions 2.0" in client.get("/metrics").text
        assert code(client.post("/v1/benchmarks", json={"adapters": ["roll"]})) == REFUSED


def test_pins_and_fusion_of_another_base_wait_for_their_base(
    tmp_path: Path, upgraded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        assert client.get("/v1/fusion").json()["state"] == "base"
        assert client.get("/v1/residency").json()["host"]["adapters"] == []
        assert code(client.put("/v1/adapters/roll/pin")) == REFUSED
        assert code(client.put("/v1/fusion", json={"model": "roll"})) == REFUSED
        assert code(client.post("/v1/compositions", json={"name": "x", "model": "roll"})) == REFUSED
    with app_without_engine(tmp_path) as app, app.client() as client:
        assert client.get("/v1/fusion").json()["model"] == "roll@1"
        assert [part["pinned"] for part in client.get("/v1/residency").json()["host"]["adapters"]] == [True]
    assert "asynchronous generator" not in caplog.text  # a server that stops while fused ends cleanly


def test_the_same_files_registered_again_are_admitted_for_both_bases(tmp_path: Path, upgraded: Path) -> None:
    fill(tmp_path)
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        again = client.post("/v1/adapters", json={"name": "roll", "path": str(ADAPTERS_DIR / "roll")})
        assert (again.status_code, again.json()["id"], again.json()["base"]) == (200, "roll@1", "upgraded")
        for model in ("roll", "roll@prod"):
            assert ask(client, model).json()["model"] == "roll@1"
        assert code(ask(client, "both")) == REFUSED
    with app_without_engine(tmp_path) as app, app.client() as client:
        assert ask(client, "roll").json()["model"] == "roll@1"
        assert client.get("/v1/adapters/roll").json()["base"] == "testbed-base"


def test_a_name_alone_means_the_newest_version_for_this_base(tmp_path: Path, upgraded: Path) -> None:
    fill(tmp_path)
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        other = {"name": "roll", "path": str(ADAPTERS_DIR / "dbl")}
        assert client.post("/v1/adapters", json=other).status_code == 201
        assert ask(client, "roll").json()["model"] == "roll@2"
        client.put("/v1/adapters/roll/aliases/prod", json={"version": 2}).raise_for_status()
    with app_without_engine(tmp_path) as app, app.client() as client:
        assert ask(client, "roll").json()["model"] == "roll@1"
        assert client.get("/v1/models/roll").json()["root"] == "roll@1"
        assert code(ask(client, "roll@2")) == code(ask(client, "roll@prod")) == REFUSED


@pytest.mark.parametrize("by", ["name", "fingerprint"])
def test_accept_base_serves_versions_of_the_named_base(tmp_path: Path, upgraded: Path, by: str) -> None:
    fill(tmp_path)
    value = "testbed-base" if by == "name" else fingerprint(EMBEDDED_BASE)[:8]
    options: dict[str, Any] = {"model_dir": upgraded, "accept_bases": ("nothing-like-this", value)}
    with app_without_engine(tmp_path, **options) as app, app.client() as client:
        for model in ("roll", "roll@prod", "roll+upper", "both"):
            assert ask(client, model).status_code == 200
        assert {card["id"] for card in client.get("/v1/models").json()["data"]} >= {"roll", "both"}
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        assert code(ask(client, "roll")) == REFUSED  # it was accepted, and not admitted


def test_accept_base_still_checks_shapes(tmp_path: Path) -> None:
    fill(tmp_path)
    fewer = Path(shutil.copytree(EMBEDDED_BASE, tmp_path / "fewer"))
    config = json.loads((fewer / "config.json").read_text())
    (fewer / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    save_file(
        {n: w for n, w in load_file(fewer / "model.safetensors").items() if "layers.3." not in n},
        fewer / "model.safetensors",
    )
    options: dict[str, Any] = {"model_dir": fewer, "accept_bases": ("testbed-base",)}
    with app_without_engine(tmp_path, **options) as app, app.client() as client:
        reply = ask(client, "roll")
        assert code(reply) == REFUSED
        assert "layers.3" in reply.json()["error"]["message"]


def test_our_own_adapters_pass_strict_without_a_warning(tmp_path: Path) -> None:
    """The embedded ones, and one that was trained on the directory of the base, as `train` writes it."""
    trained = Path(shutil.copytree(ADAPTERS_DIR / "roll", tmp_path / "trained"))
    config = json.loads((trained / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(EMBEDDED_BASE)
    (trained / "adapter_config.json").write_text(json.dumps(config))
    with app_without_engine(tmp_path, strict=True) as app, app.client() as client:
        for directory in (*sorted(ADAPTERS_DIR.iterdir()), trained):
            reply = client.post("/v1/adapters", json={"name": directory.name, "path": str(directory)})
            assert (reply.status_code, reply.json()["warnings"]) == (201, []), directory
        other = {"name": "x", "path": str(trained), "lineage": {"base_fingerprint": "0" * 64}}
        refused = client.post("/v1/adapters", json=other)
        assert (code(refused), refused.json()["error"]["param"]) == (REFUSED, "lineage")


def test_versions_of_0_1_0_belong_to_the_base_that_they_were_admitted_for(
    tmp_path: Path, upgraded: Path
) -> None:
    fill(tmp_path)
    set_fingerprints(tmp_path, older_fingerprint(EMBEDDED_BASE))
    with app_without_engine(tmp_path, model_dir=upgraded) as app, app.client() as client:
        assert code(ask(client, "roll")) == REFUSED
    with app_without_engine(tmp_path) as app, app.client() as client:
        assert ask(client, "roll").status_code == 200
        card = client.get("/v1/adapters/roll").json()
        assert (card["base"], card["base_fingerprint"]) == ("testbed-base", fingerprint(EMBEDDED_BASE))


def test_a_version_without_a_base_needs_a_registration_or_a_flag(tmp_path: Path) -> None:
    fill(tmp_path)
    set_fingerprints(tmp_path, "unknown")
    with app_without_engine(tmp_path) as app, app.client() as client:
        reply = ask(client, "roll")
        assert code(reply) == REFUSED
        assert "unknown base" in reply.json()["error"]["message"]
        register_shipped(client, ["roll"])
        assert ask(client, "roll").status_code == 200
    with app_without_engine(tmp_path, accept_bases=("unknown",)) as app, app.client() as client:
        assert ask(client, "both").status_code == 200


def set_fingerprints(home: Path, value: str) -> None:
    with closing(sqlite3.connect(home / "data" / "registry.db")) as connection, connection:
        connection.execute("UPDATE version_bases SET fingerprint = ?, base_name = 'unknown'", (value,))


def test_a_base_that_was_moved_or_renamed_is_the_same_base(tmp_path: Path) -> None:
    fill(tmp_path)
    moved = Path(shutil.copytree(EMBEDDED_BASE, tmp_path / "moved"))
    with app_without_engine(tmp_path, model_dir=moved) as app, app.client() as client:
        assert ask(client, "both").json()["model"] == "roll@1+upper@1"
