"""Runs with a real child process: the files that it leaves, and that no process remains."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lora_compose.adapters.errors import Busy, Conflict, NotFound
from lora_compose.server.benchmarks import process
from lora_compose.server.benchmarks import runs as runs_module
from lora_compose.server.benchmarks.plan import BenchmarkPlan
from lora_compose.server.benchmarks.runs import RESULT, BenchmarkRun, Benchmarks, RunLimits
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from tests.server import benchmark_child as child

PLAN = BenchmarkPlan(adapters=["roll", "upper"], arms=["base", "stack:2"])
URL = "http://127.0.0.1:8000"
LIMITS = RunLimits(in_flight=0, grace_seconds=30.0, yield_seconds=0.3)


def opened(folder: Path, limits: RunLimits = LIMITS) -> Benchmarks:
    return Benchmarks(folder, BenchmarkTraffic(), limits, child.COMMAND)


@pytest.fixture
async def benchmarks(tmp_path: Path) -> AsyncIterator[Benchmarks]:
    made = opened(tmp_path)
    yield made
    await made.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def ended(benchmarks: Benchmarks, seed: int, plan: BenchmarkPlan = PLAN) -> BenchmarkRun:
    run = benchmarks.start(plan.model_copy(update={"seed": seed}), URL)
    await until(lambda: run.status != "running")
    return run


async def hanging(benchmarks: Benchmarks, seed: int = child.HANGS) -> tuple[BenchmarkRun, int]:
    """A run whose child process has a child process, and the pid of that one."""
    run = benchmarks.start(PLAN.model_copy(update={"seed": seed}), URL)
    await until(lambda: run.progress is not None and run.progress["total"] == 0)
    assert run.progress is not None
    return run, int(run.progress["what"])


def is_gone(pid: int) -> bool:
    """True also for a zombie, whose parent has not read its exit code yet."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_run_that_ends_leaves_its_files_and_its_last_progress(benchmarks: Benchmarks) -> None:
    run = await ended(benchmarks, 0)
    assert (run.status, run.error) == ("succeeded", None)
    assert run.progress == {"done": 2, "total": 2, "what": "single"}
    found = json.loads(benchmarks.file(run.id, RESULT).read_text())
    assert found["argv"][:2] == ["--url", URL]
    assert found["argv"][(at := found["argv"].index("--adapters")) : at + 2] == ["--adapters", "roll,upper"]
    assert found["key"] not in " ".join(found["argv"])


async def test_a_failure_says_what_the_child_said_without_directories(benchmarks: Benchmarks) -> None:
    run = await ended(benchmarks, child.FAILS)
    message = "error: result.json cannot be written, see http://127.0.0.1:8000/livez"
    assert (run.status, run.error) == ("failed", {"code": "benchmark_failed", "message": message})
    with pytest.raises(NotFound, match="has failed"):
        benchmarks.file(run.id, RESULT)


async def test_a_result_with_failed_requests_in_it_can_be_fetched(benchmarks: Benchmarks) -> None:
    run = await ended(benchmarks, child.FAILS_WITH_RESULT)
    assert run.status == "failed"
    assert benchmarks.file(run.id, RESULT).is_file()


async def test_a_cancelled_run_leaves_no_process_and_no_file(benchmarks: Benchmarks, tmp_path: Path) -> None:
    run, grandchild = await hanging(benchmarks)
    both = await asyncio.gather(benchmarks.cancel(run.id), benchmarks.cancel(run.id))
    assert [run.status for run in both] == ["cancelled", "cancelled"]
    await until(lambda: is_gone(grandchild))
    assert [path.name for path in tmp_path.rglob("*")] == [run.id, "run.json"]
    with pytest.raises(Conflict, match="was cancelled already"):
        await benchmarks.cancel(run.id)


async def test_a_child_that_will_not_end_is_made_to(
    benchmarks: Benchmarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_SECONDS", 0.2)
    run, grandchild = await hanging(benchmarks, child.DEFIES)
    await benchmarks.cancel(run.id)
    await until(lambda: is_gone(grandchild))


async def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    benchmarks = opened(tmp_path, RunLimits(0, grace_seconds=0.0))
    run = await ended(benchmarks, child.HANGS, PLAN.model_copy(update={"max_seconds": 1}))
    assert run.status == "failed"
    assert run.error == {
        "code": "benchmark_timed_out",
        "message": "The benchmark was ended after its time limit of 1 seconds.",
    }


async def test_it_yields_when_others_need_the_server(benchmarks: Benchmarks) -> None:
    run, grandchild = await hanging(benchmarks)
    with benchmarks.traffic.counted({"headers": []}):
        await until(lambda: run.status == "yielded")
    await until(lambda: is_gone(grandchild))


async def test_it_does_not_begin_when_others_need_the_server_unless_forced(benchmarks: Benchmarks) -> None:
    with benchmarks.traffic.counted({"headers": []}):
        with pytest.raises(Busy, match="1 other requests are in flight"):
            benchmarks.start(PLAN, URL)
        run = benchmarks.start(PLAN.model_copy(update={"force": True}), URL)
        await until(lambda: run.status != "running")
    assert run.status == "succeeded"


async def test_its_own_requests_are_no_traffic_while_it_runs_and_only_then() -> None:
    traffic = BenchmarkTraffic()
    own = {"headers": [(b"authorization", f"Bearer {traffic.open()}".encode())]}
    with traffic.counted(own):
        assert traffic.real == 0
    traffic.close()
    with traffic.counted(own):
        assert traffic.real == 1
    assert traffic.real == 0


async def test_there_is_one_at_a_time(benchmarks: Benchmarks) -> None:
    run, _ = await hanging(benchmarks)
    with pytest.raises(Conflict, match="only one can run at a time"):
        benchmarks.start(PLAN, URL)
    with pytest.raises(Conflict, match="still running"):
        benchmarks.file(run.id, RESULT)


async def test_the_end_of_the_server_ends_it_and_the_next_server_knows_what_became_of_it(
    tmp_path: Path,
) -> None:
    benchmarks = opened(tmp_path)
    run, grandchild = await hanging(benchmarks)
    await benchmarks.close()
    await until(lambda: is_gone(grandchild))
    (tmp_path / ".bench-killed").mkdir()
    assert opened(tmp_path).runs() == [run]
    assert not (tmp_path / ".bench-killed").exists()


async def test_the_newest_are_kept(benchmarks: Benchmarks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "KEPT_RUNS", 2)
    runs = [await ended(benchmarks, 0) for _ in range(3)]
    assert benchmarks.runs() == [runs[2], runs[1]]
    with pytest.raises(NotFound):
        benchmarks.file(runs[0].id, RESULT)


async def test_a_command_that_is_not_there_is_a_failed_run(tmp_path: Path) -> None:
    benchmarks = Benchmarks(tmp_path, BenchmarkTraffic(), LIMITS, ("/nonexistent/python",))
    run = await ended(benchmarks, 0)
    assert run.error == {
        "code": "benchmark_not_started",
        "message": "The benchmark could not be started: No such file or directory.",
    }
