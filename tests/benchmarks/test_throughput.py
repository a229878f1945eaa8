"""The whole benchmark, one tiny round against the shared server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.cli import throughput_app
from tests.running_server import RunningServer

TINY = ["--rounds", "1", "--concurrency", "4", "--requests", "4", "--output-tokens", "4"]
ADAPTERS = ["roll", "upper", "polite", "dbl"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "results.json"


@pytest.fixture(scope="module")
def run(server: RunningServer, out: Path) -> Result:
    options = [*TINY, "--adapters", ",".join(ADAPTERS), "--prefill-chars", "64"]
    return CliRunner().invoke(throughput_app, ["--url", server.url, "--out", str(out), *options])


def test_every_arm_gets_a_line_and_a_ratio_to_the_base(run: Result) -> None:
    assert run.exit_code == 0
    findings = json.loads(run.stdout.splitlines()[-1])["findings"]
    assert [one["ratio"] is None for one in findings] == [one["arm"] == "base" for one in findings]
    assert all(one["arm"] in run.stdout for one in findings)


def test_the_result_holds_every_request_with_its_exact_length_and_what_answered(
    run: Result, out: Path
) -> None:
    result = json.loads(out.read_text())
    rows = [row for one in result["passes"] for row in one["rows"]]
    assert len(rows) == 2 * (7 * 4 + 3 * 6)
    assert {row["usage"]["completion_tokens"] for row in rows} == {4, 1}
    answered = {row["answered_by"] for row in rows}
    roll, upper, polite, dbl = (adapter["id"] for adapter in result["adapters"])
    stacks = {f"{roll}+{upper}", f"{polite}+{roll}+{upper}", f"svd({roll}+{upper})"}
    stacks |= {f"{dbl}+{polite}+{roll}+{upper}"}
    assert answered == {result["base"], roll, upper, polite, dbl} | stacks


def test_the_result_says_how_it_was_made(run: Result, out: Path) -> None:
    result = json.loads(out.read_text())
    assert [adapter["id"].partition("@")[0] for adapter in result["adapters"]] == ADAPTERS
    assert all(len(adapter["digest"]) == 64 for adapter in result["adapters"])
    assert result["settings"]["seed"] == 0
    assert result["machine"]["versions"]["torch"]


def test_a_failed_request_is_counted_shown_and_ends_in_exit_code_1(server: RunningServer) -> None:
    too_long = ["--rounds", "1", "--concurrency", "1", "--requests", "1", "--prefill-chars", "5000"]
    done = CliRunner().invoke(throughput_app, ["--url", server.url, "--output-tokens", "2", *too_long])
    findings = json.loads(done.stdout.splitlines()[-1])["findings"]
    prefill = [one for one in findings if one["phase"] == "prefill"]
    assert done.exit_code == 1
    assert all(one["failed"] == one["requests"] and one["ratio"] is None for one in prefill)
    assert "no whole round" in done.stdout


def test_without_a_server_the_error_says_so() -> None:
    done = CliRunner().invoke(throughput_app, ["--url", "http://127.0.0.1:9", *TINY])
    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.stderr
