"""`lora-compose bench serve` on the shared server, and the commands that read its result."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.benchmarks.serving.benchmark import without_paths
from lora_compose.benchmarks.serving.cli import app
from tests.running_server import RunningServer

TINY = ["--concurrency", "2", "--rates", "20", "--requests", "4", "--repeats", "2", "--output-tokens", "4"]
RUN = [
    "--adapters",
    "roll,upper",
    "--arms",
    "single,stack:2,merge:2,fused:2,residual:2,peft:1",
    "--allow-fuse",
]


@pytest.fixture(scope="module")
def result(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latency") / "bench.json"
    done = CliRunner().invoke(app, ["serve", "--url", server.url, *TINY, *RUN, "--output", str(path)])
    assert done.exit_code == 0, done.output
    assert "stack:2" in done.stdout
    return path


@pytest.fixture(scope="module")
def document(result: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(result.read_text())
    return read


def test_every_arm_is_measured_in_every_cell_and_nothing_fails(document: dict[str, Any]) -> None:
    arms = ("base", "single", "stack:2", "merge:2", "fused:2", "residual:2")
    assert {(one["cell"], one["arm"]) for one in document["passes"]} == {
        (cell, arm) for cell in ("closed loop, 2 in flight", "open loop, 20/s") for arm in arms
    }
    rows = [row for one in document["passes"] for row in one["rows"]]
    assert {(row["tokens"], row["failure"]) for row in rows} == {(4, None)}


def test_arms_take_turns_in_the_other_order_in_every_other_repeat(document: dict[str, Any]) -> None:
    order = [
        [one["arm"] for one in document["passes"] if one["repeat"] == repeat and "closed" in one["cell"]]
        for repeat in (0, 1)
    ]
    assert order[0][0] == order[1][-1] == "base"


def test_exact_arms_give_the_answers_of_the_exact_stack(document: dict[str, Any]) -> None:
    off = {one["arm"]: one["max_abs_logprob"] for one in document["differences"]}
    assert max(off["single"], off["stack:2"], off["fused:2"]) < 1e-3
    assert off["merge:2"] > 1e-3


def test_an_arm_that_needs_its_own_server_is_left_out_and_says_so(document: dict[str, Any]) -> None:
    assert "--url" in document["skipped"]["peft:1"]


def test_the_base_is_restored_afterwards(server: RunningServer, document: dict[str, Any]) -> None:
    from lora_compose.server.client.http import Client

    with Client(server.url) as client:
        assert client.fusion()["state"] == "base"
    assert [one["what"] for one in document["switches"]][:2] == ["fuse", "restore"]


def test_the_result_says_how_it_was_made(document: dict[str, Any]) -> None:
    assert document["machine"]["versions"]["torch"]
    assert all(len(adapter["digest"]) == 64 for adapter in document["adapters"])
    assert document["plan"]["seed"] == 0
    assert len(document["workload_digest"]) == 64


def test_advice_and_comparison_are_made_from_the_result(result: Path) -> None:
    advice = CliRunner().invoke(app, ["advise", str(result), "--share", "0.9"])
    assert "Only 2 repeats of stack:2 can be compared" in advice.stdout
    same = CliRunner().invoke(app, ["compare", str(result), str(result)])
    assert same.exit_code == 0
    assert same.stdout.splitlines()[-1] == "no change"


def test_json_is_all_that_a_run_prints_on_stdout(server: RunningServer, tmp_path: Path) -> None:
    options = ["--adapters", "roll", "--arms", "base,single", "--output", str(tmp_path / "bench.json")]
    done = CliRunner().invoke(app, ["serve", "--url", server.url, *TINY, *options, "--json"])
    facts = json.loads(done.stdout)
    assert {arm["arm"] for arm in facts["arms"]} == {"base", "single"}
    assert "benchmark: started" in done.stderr


def test_a_run_notes_the_load_of_others_before_and_after_each_repeat(document: dict[str, Any]) -> None:
    assert len(document["others_busy"]) == 1 + document["plan"]["repeats"]
    assert len(document["stolen"]) == document["plan"]["repeats"]
    assert all(0 <= share <= 1 for share in document["others_busy"] + document["stolen"])


def test_a_file_that_is_not_a_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    done = CliRunner().invoke(app, ["advise", str(path)])
    assert done.exit_code != 0
    assert "bench serve" in str(done.exception)


def test_a_mistyped_arm_is_refused_before_any_server_starts() -> None:
    done = CliRunner().invoke(app, ["serve", "--arms", "stak:2"])
    assert done.exit_code == 2
    assert "stak" in done.output


def test_a_published_command_has_no_local_paths() -> None:
    assert without_paths(f"{REPOSITORY}/training/testbed/base") == "training/testbed/base"
    assert without_paths(sys.executable) == Path(sys.executable).name
    assert without_paths(f"{tempfile.gettempdir()}/lora-compose-bench-abc/data") == "TMP/data"
