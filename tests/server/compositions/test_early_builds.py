"""Merges of saved compositions are built before a request needs them, and their state is shown."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import httpx

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.peft.files import WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.compositions.merges import MergeBuilder, MergedOn
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.metrics import Metrics
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.adapters.registries import FACTS, FOR_BASE
from tests.server.app_without_engine import app_without_engine, register_shipped

TIES = {"model": "ties(roll+upper,density=0.5)"}


def state_of(client: httpx.Client, name: str, *, until: str = "ready") -> dict[str, Any]:
    """The build of the saved composition, when it has the state `until`."""
    end = time.monotonic() + 60
    while True:
        build: dict[str, Any] = client.get(f"/v1/compositions/{name}").raise_for_status().json()["build"]
        if build["state"] == until or time.monotonic() > end:
            return build
        time.sleep(0.05)


def sample(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


def save(client: httpx.Client, name: str, model: str = TIES["model"]) -> dict[str, Any]:
    saved: dict[str, Any] = (
        client.post("/v1/compositions", json={"name": name, "model": model}).raise_for_status().json()
    )
    return saved


def test_a_saved_merge_is_built_without_a_request_and_listed_as_ready(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        assert save(client, "both")["build"]["state"] in ("waiting", "building")
        assert state_of(client, "both") == {"state": "ready", "error": None}
        assert [row["build"]["state"] for row in client.get("/v1/compositions").json()["data"]] == ["ready"]
        assert sample(client, 'lora_compose_saved_merges{state="ready"}') == 1
        assert sample(client, "lora_compose_merge_duration_seconds_count") == 1
        body = {"model": "both", "prompt": "x"}
        assert client.post("/v1/completions", json=body).status_code == 200
        assert sample(client, "lora_compose_merge_duration_seconds_count") == 1


def test_a_saved_stack_is_ready_at_once(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        assert save(client, "both", "roll+upper")["build"] == {"state": "ready", "error": None}


def test_a_new_version_of_a_member_is_merged_early_too(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        save(client, "both")
        state_of(client, "both")
        body = {"name": "upper", "path": str(ADAPTERS_DIR / "wrap")}
        client.post("/v1/adapters", json=body).raise_for_status()
        assert state_of(client, "both")["state"] == "ready"
        assert client.get("/v1/compositions/both").json()["resolved"].startswith("ties(roll@1+upper@2")
        assert sample(client, "lora_compose_merge_duration_seconds_count") == 2


def test_a_merge_that_was_not_built_before_a_restart_is_built_after_it(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
    with Registry(tmp_path / "data") as registry:
        registry.save_composition("both", parse(TIES["model"]))
    with app_without_engine(tmp_path) as app, app.client() as client:
        assert state_of(client, "both")["state"] == "ready"


def test_a_build_that_fails_shows_its_cause_and_other_merges_are_built(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper", "wrap"])
        with Registry.open_readonly(app.data_dir) as registry:
            broken = registry.resolve("roll").directory / WEIGHTS_FILE
        broken.chmod(0o600)
        broken.write_bytes(bytes(broken.stat().st_size))
        save(client, "both")
        save(client, "other", "svd(upper+wrap)")
        failed = state_of(client, "both", until="failed")
        assert failed["state"] == "failed"
        assert failed["error"]["code"] == "corrupt_weights"
        assert state_of(client, "other")["state"] == "ready"


def test_no_merge_is_built_early_when_the_cached_merges_are_full(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, merge_cache_bytes=0) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        save(client, "both")
        assert state_of(client, "both", until="unbuilt")["state"] == "unbuilt"
        body = {"model": "both", "prompt": "x"}
        assert client.post("/v1/completions", json=body).status_code == 200


def test_an_early_build_is_charged_to_the_key_that_saves(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, api_keys=["operator"]) as app, app.client("operator") as operator:
        register_shipped(operator, ["roll", "upper"])
        secret = app.create_key("team", role="admin", quotas={"builds_per_hour": 1})
        with app.client(secret) as client:
            save(client, "first")
            save(client, "second", "svd(roll+upper)")
            assert state_of(client, "first")["state"] == "ready"
            assert state_of(client, "second", until="unbuilt")["state"] == "unbuilt"


async def test_an_abandoned_build_stops_its_process_and_the_next_merge_is_right(
    tmp_path: Path,
) -> None:
    with Registry(tmp_path / "data") as registry:
        for name in ("roll", "upper"):
            with registry.staging() as staged:
                shutil.copytree(ADAPTERS_DIR / name, staged, dirs_exist_ok=True)
                registry.register(name, staged, FACTS, "test", {}, FOR_BASE)
        with MergeBuilder(registry, MergedOn("base", Path(), "0"), Metrics()) as merges:
            resolver = Resolver(registry, 64)
            first, second = (resolver.resolve(parse(f"{m}(roll+upper)")) for m in ("svd", "linear"))
            task = asyncio.create_task(merges.build(first))
            while not merges.is_building(merges.key(first)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            merges.abandon(merges.key(first))
            assert not merges.is_building(merges.key(first))
            built = await merges.build(second)
            assert Path(built.members[0].component.directory).is_dir()
            assert registry.merges.keys([merges.key(first)]) == set()
