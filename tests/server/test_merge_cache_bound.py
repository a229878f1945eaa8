"""--merge-cache-bytes bounds the merges on the disk, also after a restart, and never deletes one in use."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lora_compose.server.config import ServerConfig
from tests.server.app_without_engine import app_without_engine, register_shipped

PATIENCE = 30.0
MEMBERS = 2


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def merges(home: Path) -> int:
    return len(list((home / "data" / "store").iterdir())) - MEMBERS


def ask(client: httpx.Client, rank: int) -> None:
    body = {"model": f"svd(roll+upper,rank={rank})", "prompt": "x"}
    client.post("/v1/completions", json=body).raise_for_status()


def metric(client: httpx.Client, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_the_merges_on_the_disk_are_bounded_and_all_are_served(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        for rank in (2, 3, 4):
            ask(client, rank)
        assert merges(tmp_path) == 3
        until(lambda: metric(client, "lora_compose_merge_cache_bytes") > 0)
        client.put("/v1/fusion", json={"model": "svd(roll+upper,rank=2)"}).raise_for_status()
    with app_without_engine(tmp_path, merge_cache_bytes=0) as app, app.client() as client:
        assert client.get("/v1/fusion").json()["model"] == "svd(roll@1+upper@1,rank=2)"
        for rank in (3, 4, 3):
            ask(client, rank)
        until(lambda: merges(tmp_path) == 1)  # the fused one
        assert metric(client, "lora_compose_merge_cache_evictions_total") >= 5
        client.delete("/v1/fusion").raise_for_status()
        ask(client, 4)
        until(lambda: merges(tmp_path) == 0)


def test_merges_that_are_wanted_at_once_are_all_served_within_a_bound_of_nothing(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, merge_cache_bytes=0) as app, app.client() as client:
        register_shipped(client, ["roll", "upper"])
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: ask(client, 1 + number % 5), range(60)))
        until(lambda: merges(tmp_path) == 0)


def test_a_bound_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="--merge-cache-bytes"):
        ServerConfig(merge_cache_bytes=-1)
