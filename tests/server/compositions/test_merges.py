"""Merges are built outside the engine, and their answers match the merged deltas."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.compositions.merges import MergeBuilder, MergedOn
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.metrics import Metrics
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from tests.adapters.registries import FACTS, FOR_BASE, register
from tests.server.test_stack import served

Trim = Callable[[int, Callable[[str, str], bool]], tuple[int, int]]
PAIR = [{"name": "roll", "weight": 0.9}, {"name": "upper"}]


def test_svd_at_full_rank_is_the_stack(http: httpx.Client) -> None:
    stack = served(http, model="testbed-base", adapters=PAIR)
    merge = served(http, model="testbed-base", adapters=PAIR, composition={"method": "svd", "rank": 16})
    assert merge["ids"] == stack["ids"]
    assert merge["logprobs"] == pytest.approx(stack["logprobs"], abs=1e-3)


def test_a_merge_answers_unlike_the_stack_where_its_error_is_large(http: httpx.Client) -> None:
    dry = http.post(
        "/v1/compositions?dry_run=true",
        json={"adapters": PAIR, "composition": {"method": "svd", "rank": 1}},
    ).json()
    assert dry["error"] > 0.1
    merge = served(http, model="testbed-base", adapters=PAIR, composition={"method": "svd", "rank": 1})
    assert merge["logprobs"] != pytest.approx(
        served(http, model="testbed-base", adapters=PAIR)["logprobs"], abs=1e-3
    )


def test_a_dry_run_saves_nothing(http: httpx.Client) -> None:
    before = http.get("/v1/compositions").json()
    dry = http.post("/v1/compositions?dry_run=true", json={"name": "bot", "model": "roll+upper"}).json()
    assert (dry["rank"], dry["error"], dry["report"]) == (16, 0.0, None)
    assert http.get("/v1/compositions").json() == before


@pytest.mark.parametrize(
    "composition",
    [
        {"method": "linear"},
        {"method": "ties", "density": 0.5},
        {"method": "dare_linear", "density": 0.5, "seed": 1},
        {"method": "dare_ties", "density": 0.5},
        {"method": "magnitude_prune", "density": 0.5},
    ],
)
def test_every_method_is_served(http: httpx.Client, composition: dict[str, object]) -> None:
    body = {
        "model": "testbed-base",
        "adapters": PAIR,
        "composition": composition,
        "prompt": "x",
        "max_tokens": 1,
    }
    reply = http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-lora-composition"].startswith(f"{composition['method']}(")


def test_lorax_s_merged_adapters_is_understood(http: httpx.Client) -> None:
    merged = {"ids": ["roll", "upper"], "weights": [0.9, 1.0], "merge_strategy": "ties", "density": 0.5}
    body = {"model": "testbed-base", "merged_adapters": merged, "prompt": "x", "max_tokens": 1}
    assert http.post("/v1/completions", json=body).status_code == 200


def test_density_where_it_is_needed_must_be_given(http: httpx.Client, adapter_root: Path) -> None:
    body = {"model": "testbed-base", "adapters": PAIR, "composition": {"method": "ties"}, "prompt": "x"}
    reply = http.post("/v1/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "missing_density")


async def test_a_merge_that_cannot_be_built_is_counted_and_is_no_duration(tmp_path: Path) -> None:
    metrics = Metrics()
    with (
        Registry(tmp_path / "data") as registry,
        MergeBuilder(registry, MergedOn("base", Path(), "0"), metrics) as merges,
    ):
        for name in "ab":
            register(registry, name, f"no weights at all: {name}")
        resolved = Resolver(registry, 64).resolve(parse("svd(a+b,rank=2)"))
        with pytest.raises(Exception, match="adapter"):
            await merges.build(resolved)
    read = metrics.registry.get_sample_value
    assert read("lora_compose_merge_failures_total") == 1
    assert read("lora_compose_merge_duration_seconds_count") == 0
    assert read("lora_compose_merges_in_progress") == 0


def hold_back(trim: Trim, has_looked: threading.Event, may_end: threading.Event) -> Trim:
    """`trim`, which ends only when `may_end` is set."""

    def held(max_bytes: int, in_use: Callable[[str, str], bool]) -> tuple[int, int]:
        result = trim(max_bytes, in_use)
        has_looked.set()
        may_end.wait()
        return result

    return held


async def test_a_merge_that_is_released_while_others_are_deleted_is_deleted_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_looked, may_end = threading.Event(), threading.Event()
    with (
        Registry(tmp_path / "data") as registry,
        MergeBuilder(registry, MergedOn("base", BASE_DIR, "0"), Metrics(), max_bytes=0) as merges,
    ):
        for name in ("roll", "upper"):
            directory = ADAPTERS_DIR / name
            with registry.stage(directory / CONFIG_FILE, directory / WEIGHTS_FILE) as staged:
                registry.register(name, staged, FACTS, "test", {}, FOR_BASE)
        resolved = Resolver(registry, 64).resolve(parse("svd(roll+upper,rank=2)"))
        monkeypatch.setattr(registry.merges, "trim", hold_back(registry.merges.trim, has_looked, may_end))
        with merges.using(resolved):
            await merges.build(resolved)
            await asyncio.to_thread(has_looked.wait)
            assert registry.merges.size()[0] == 1
        may_end.set()
        async with asyncio.timeout(60):
            while registry.merges.size()[0]:
                await asyncio.sleep(0.01)
