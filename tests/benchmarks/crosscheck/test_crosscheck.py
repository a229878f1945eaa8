"""The crosscheck: when two benchmarks agree, and that a pass with a failure is not a measurement."""

import json
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.crosscheck import vllm_bench
from lora_compose.benchmarks.crosscheck.crosscheck import our_pass
from lora_compose.benchmarks.crosscheck.verdict import METRICS, Verdict, markdown, summarized, verdicts
from lora_compose.benchmarks.crosscheck.vllm_bench import ClosedLoop, started
from tests.running_server import RunningServer


def verdict(ours: list[float], theirs: list[float]) -> Verdict:
    passes = [
        {
            "model": "roll",
            "concurrency": 4,
            "ours": dict.fromkeys(METRICS, a),
            "theirs": dict.fromkeys(METRICS, b),
        }
        for a, b in zip(ours, theirs, strict=True)
    ]
    document = {"passes": passes, "config": {"seed": 0}}
    assert len(markdown(document).splitlines()) == 4 + len(METRICS)
    return verdicts(document)[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        ([10.0] * 5, [10.4] * 5, "yes"),  # within 5 %
        ([10.0] * 5, [12.0] * 5, "NO"),
        ([10.0, 13, 10, 13, 11], [12.0, 14, 12, 14, 13], "yes"),  # the intervals meet
        ([10.0, 30, 10, 30, 12], [14.0, 30, 10, 30, 16], "noise"),  # they meet because they are wide
    ],
)
def test_they_agree_within_noise(ours: list[float], theirs: list[float], word: str) -> None:
    assert verdict(ours, theirs).word == word


def test_the_published_table_is_what_the_result_beside_it_says() -> None:
    root = Path(__file__).resolve().parents[3]
    assert (
        markdown(json.loads((root / "benchmarks" / "results" / "crosscheck.json").read_text()))
        in (root / "docs" / "crosscheck.md").read_text()
    )


def test_our_medians_have_vllm_s_names_and_units() -> None:
    rows = [{"ttft": 0.1, "e2el": 0.1 + 3 * gap, "tokens": 4} for gap in (0.01, 0.02, 0.05)]
    found = summarized(rows, seconds=2.0)
    assert found == {
        "ttft_ms": pytest.approx(100),
        "tpot_ms": pytest.approx(20),
        "e2el_ms": pytest.approx(160),
        "output_throughput": 6,
    }


async def test_a_pass_is_measured_on_a_real_server(server: RunningServer) -> None:
    found = await our_pass(server.url, ClosedLoop("roll+upper", 2, 4, 8, 4, 0))
    assert set(found) == set(METRICS)
    assert min(found.values()) > 0


async def test_a_pass_with_a_failed_request_is_refused(server: RunningServer) -> None:
    with pytest.raises(LoraComposeError, match="http_404"):
        await our_pass(server.url, ClosedLoop("unknown", 1, 2, 8, 4, 0))


def test_a_benchmark_of_vllm_that_ends_early_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; sys.stdin.readline(); sys.exit('no such flag')"
    monkeypatch.setattr(vllm_bench, "PROGRAM", program)
    with started(tmp_path) as process, pytest.raises(LoraComposeError, match="no such flag"):
        process.run("http://127.0.0.1:9", "none", ClosedLoop("roll", 1, 2, 8, 4, 0))
