"""Counts and times of answers by a real engine."""

from functools import partial
from typing import Any

import httpx
import pytest

from tests.server.http.test_request_metrics import PROMPT, Read, value


@pytest.fixture
def sample(http: httpx.Client) -> Read:
    """The current value of a series; 0 if it does not exist."""
    return partial(value, http)


def test_a_refusal_by_vllm_counts_under_its_kind(http: httpx.Client, sample: Read) -> None:
    before = sample("lora_compose_requests_total", kind="single", status="4xx")
    http.post("/v1/completions", json={"model": "roll", "prompt": PROMPT, "max_tokens": -1})
    assert sample("lora_compose_requests_total", kind="single", status="4xx") == before + 1


def test_a_stream_is_timed_from_its_arrival_event_by_event(http: httpx.Client, sample: Read) -> None:
    def counts() -> list[float]:
        names = ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
        return [sample(f"lora_compose_{name}_seconds_count", kind="stack") for name in names]

    before = counts()
    body = {"model": "roll+upper", "prompt": PROMPT, "max_tokens": 8, "stream": True, "ignore_eos": True}
    events = http.post("/v1/completions", json=body).text.count("data: {")
    assert [now - was for now, was in zip(counts(), before, strict=True)] == [1, events - 1, 1]


def test_new_mixes_of_adapters_add_no_series(http: httpx.Client) -> None:
    def series() -> set[str]:
        lines = http.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    def ask(weight: float) -> None:
        body = {"model": f"roll:{weight}+upper", "prompt": PROMPT, "max_tokens": 2}
        http.post("/v1/completions", json=body).raise_for_status()

    ask(0.11)
    before = series()
    for number in range(20):
        ask(0.2 + number / 100)
    assert series() == before
    assert not any("lora_requests_info" in line for line in before)


def test_the_server_says_that_it_is_ready_what_it_is_and_what_disk_is_left(sample: Read, http: Any) -> None:
    assert sample("lora_compose_ready") == 1
    assert sample("lora_compose_data_dir_free_bytes") > 1e6
    assert "lora_compose_build_info{" in http.get("/metrics").text
