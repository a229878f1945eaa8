"""Tensor parallelism: each worker prepares, scales and folds its own shard, and the answers are the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer
from tests.server import test_dora
from tests.server.test_stack import WEIGHTS, peft_logprobs, served

CORES = sorted(os.sched_getaffinity(0))
COMPOSITIONS: dict[str, dict[str, float]] = {
    "roll:0.8+upper:1.3+dbl:-0.4": WEIGHTS,
    "roll": {"roll": 1.0},
    "polite:0.7": {"polite": 0.7},
}

pytestmark = [
    pytest.mark.two_workers,
    pytest.mark.skipif(len(CORES) < 2, reason="vLLM wants a core for each worker"),
]


@pytest.fixture(scope="module")
def extra_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, extra_root: Path) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("two-workers")
    roots = ["--adapter-root", str(ADAPTERS_DIR), "--adapter-root", str(extra_root)]
    options = [*roots, "--tensor-parallel-size", "2"]
    with pytest.MonkeyPatch.context() as patch:  # without this, vLLM binds each worker to a NUMA node
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{CORES[0]}|{CORES[1]}")
        running = RunningServer.start(home / "data", home / "log", options)
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=running.url, timeout=60) as http:
            for name in ("roll", "upper", "dbl", "polite"):
                body = {"name": name, "path": str(ADAPTERS_DIR / name)}
                http.post("/v1/adapters", json=body).raise_for_status()
            yield http
    finally:
        running.stop()


def assert_answers_are_peft_s(http: httpx.Client) -> None:
    for model, weights in COMPOSITIONS.items():
        answer = served(http, model=model)
        assert answer["logprobs"] == pytest.approx(peft_logprobs(answer["ids"], weights), abs=1e-3)  # type: ignore[arg-type]


def test_every_answer_is_peft_s_and_every_adapter_in_both_workers(both: httpx.Client) -> None:
    assert_answers_are_peft_s(both)
    adapters = both.get("/v1/residency").json()["host"]["adapters"]
    assert [adapter["workers"] for adapter in adapters] == [2] * 4


def test_a_fused_base_is_whole_and_is_restored_to_the_bit(both: httpx.Client) -> None:
    base = served(both, model="testbed-base")
    both.put("/v1/fusion", json={"model": "roll+upper:0.5"}).raise_for_status()
    assert_answers_are_peft_s(both)
    fused = served(both, model="testbed-base")
    assert fused["logprobs"] == pytest.approx(base["logprobs"], abs=1e-3)
    both.delete("/v1/fusion").raise_for_status()
    assert served(both, model="testbed-base") == base


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
@pytest.mark.parametrize("fused", [None, "dora"])
def test_scales_and_biases_are_split_and_no_bias_is_added_twice(
    both: httpx.Client, extra_root: Path, fused: str | None
) -> None:
    for name in test_dora.ADAPTERS:
        test_dora.save(name, extra_root / name)
        body = {"name": name, "path": str(extra_root / name)}
        both.post("/v1/adapters", json=body).raise_for_status()
    reference = test_dora.Reference(extra_root)
    if fused is not None:
        both.put("/v1/fusion", json={"model": fused}).raise_for_status()
    for model in test_dora.COMPOSITIONS:
        reply = both.post("/v1/completions", json=test_dora.body_of(model, test_dora.PROMPTS[0]))
        assert test_dora.difference(reference, model, test_dora.PROMPTS[0], reply) < 1e-4
    both.delete("/v1/fusion").raise_for_status()
