"""`/v1/benchmarks` on the shared server: refusals, and one complete run."""

import time
from typing import Any

import httpx
import pytest

from tests.server.test_refusals import assert_refused

SMALL = {
    "adapters": ["roll"],
    "arms": ["base", "single"],
    "concurrency": [1],
    "rates": [20.0],
    "requests": 2,
    "output_tokens": 2,
    "prompt_tokens": 8,
    "repeats": 1,
    "max_seconds": 60,
}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"nothing": 1}, 400, "unknown_field", "nothing"),
        ({"adapters": ["nobody"]}, 404, "model_not_found", None),
        ({"adapters": "roll"}, 400, "out_of_range", "adapters"),
        ({"adapters": []}, 400, "out_of_range", "adapters"),
        ({"adapters": ["roll", "roll"]}, 400, "given_twice", "adapters"),
        ({"adapters": ["--url"]}, 400, "invalid_name", "adapters"),
        ({"arms": ["fused:2"]}, 400, "arm_not_allowed", "arms"),
        ({"arms": ["peft:1"]}, 400, "arm_not_allowed", "arms"),
        ({"arms": ["vllm:1"]}, 400, "arm_not_allowed", "arms"),
        ({"arms": ["stack:9"]}, 400, "arm_not_allowed", "arms"),
        ({"arms": ["base\n"]}, 400, "arm_not_allowed", "arms"),
        ({"adapters": ["roll"], "arms": ["stack:2"]}, 400, "too_few_adapters", "arms"),
        ({"concurrency": [65]}, 400, "out_of_range", "concurrency"),
        ({"concurrency": [True]}, 400, "out_of_range", "concurrency"),
        ({"rates": [0]}, 400, "out_of_range", "rates"),
        ({"rates": [1.0] * 17}, 400, "out_of_range", "rates"),
        ({"requests": 1001}, 400, "out_of_range", "requests"),
        ({"repeats": 0}, 400, "out_of_range", "repeats"),
        ({"output_tokens": 1.5}, 400, "out_of_range", "output_tokens"),
        ({"prompt_tokens": 2040}, 400, "out_of_range", "prompt_tokens"),
        ({"max_seconds": 1801}, 400, "out_of_range", "max_seconds"),
        ({"seed": "0"}, 400, "out_of_range", "seed"),
        ({"force": "yes"}, 400, "invalid_request", "force"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_its_field(
    plain_http: httpx.Client, body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    reply = plain_http.post("/v1/benchmarks", json=body)
    assert_refused(reply, status, code)
    assert param is None or reply.json()["error"]["param"] == param
    assert plain_http.get("/v1/benchmarks").json()["object"] == "list"


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "1e999"])
def test_a_rate_that_is_no_number_is_refused(plain_http: httpx.Client, rate: str) -> None:
    reply = plain_http.post(
        "/v1/benchmarks", content=f'{{"rates": [{rate}]}}', headers={"content-type": "application/json"}
    )
    assert_refused(reply, 400, "out_of_range")


@pytest.mark.parametrize("path", ["", "/report", "/result"])
def test_a_benchmark_nobody_ran_is_not_found(plain_http: httpx.Client, path: str) -> None:
    for name in ("bench-0", "..%2F..%2Fregistry.db"):
        assert plain_http.get(f"/v1/benchmarks/{name}{path}").status_code == 404


def test_one_runs_at_a_time_and_can_be_cancelled(http: httpx.Client) -> None:
    pytest.importorskip("lora_compose.benchmarks.serving")
    begun = http.post("/v1/benchmarks", json=SMALL | {"requests": 1000, "output_tokens": 500})
    assert (begun.status_code, begun.json()["status"]) == (201, "running"), begun.text
    path = f"/v1/benchmarks/{begun.json()['id']}"
    assert_refused(http.post("/v1/benchmarks", json=SMALL), 409, "benchmark_running")
    assert_refused(http.get(f"{path}/report"), 409, "benchmark_running")
    assert http.delete(path).json()["status"] == "cancelled"
    assert http.get(path).json()["status"] == "cancelled"
    assert_refused(http.delete(path), 409, "benchmark_not_running")
    assert_refused(http.get(f"{path}/result"), 404, "result_not_found")


def test_a_run_ends_with_its_report_and_its_result(http: httpx.Client) -> None:
    pytest.importorskip("lora_compose.benchmarks.serving")
    run = http.post("/v1/benchmarks", json=SMALL).raise_for_status().json()
    deadline = time.monotonic() + 90
    while run["status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
        run = http.get(f"/v1/benchmarks/{run['id']}").json()
    assert (run["status"], run["error"]) == ("succeeded", None)
    page = http.get(f"/v1/benchmarks/{run['id']}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert isinstance(http.get(f"/v1/benchmarks/{run['id']}/result").json(), dict)
