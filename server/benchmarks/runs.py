"""The benchmarks of this server: one at a time, in a child process, with the newest results on disk.

A run writes into a hidden folder, which is renamed when the run has ended. So a result is complete or absent.
A run is ended if user traffic needs the server, and when the server ends.
"""

import asyncio
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lora_compose.adapters.errors import Busy, Code, Conflict, NotFound
from lora_compose.adapters.registry.database import storage_faults
from lora_compose.server.benchmarks.plan import BenchmarkPlan
from lora_compose.server.benchmarks.process import Exit, follow
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "lora_compose.benchmarks.serving")
REPOSITORY = Path(__file__).resolve().parents[2]
RESULT, REPORT, RECORD = "result.json", "report.html", "run.json"
KEPT_RUNS = 20
POLL_SECONDS = 0.25

Status = Literal["running", "succeeded", "failed", "cancelled", "yielded"]
ENDED: dict[Status, str] = {
    "succeeded": "has succeeded",
    "failed": "has failed",
    "cancelled": "was cancelled",
    "yielded": "was ended by other requests",
}
"""The end of a run in an error message."""


@dataclass(frozen=True)
class RunLimits:
    """Limits of a run."""

    in_flight: int
    """If more other requests than this are in flight, a run does not start, and a running one is ended."""
    grace_seconds: float = 30.0
    """Time after the plan's `max_seconds` to end the last pass and write the result."""
    yield_seconds: float = 5.0
    """A run is ended after this many seconds of too much user traffic."""


@dataclass
class BenchmarkRun:
    """One benchmark, with the fields that are shown over HTTP."""

    id: str
    created: int
    plan: dict[str, Any]
    status: Status = "running"
    progress: dict[str, Any] | None = None
    error: dict[str, str] | None = None

    def end(self, status: Status, code: str = "", message: str = "") -> None:
        """Set the final status, and with a code the error."""
        self.status = status
        self.error = {"code": code, "message": message} if code else None


class Benchmarks:
    """Owner of the runs. The arguments of a run are appended to `command`."""

    def __init__(
        self, folder: Path, traffic: BenchmarkTraffic, limits: RunLimits, command: Sequence[str] = COMMAND
    ) -> None:
        self.traffic = traffic
        self._folder = folder
        self._limits = limits
        self._command = command
        self._runs = _read(folder)
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def runs(self) -> list[BenchmarkRun]:
        """All runs, the newest first."""
        return sorted(self._runs.values(), key=lambda run: run.id, reverse=True)

    def run(self, name: str) -> BenchmarkRun:
        """Raises NotFound("benchmark_not_found")."""
        if name not in self._runs:
            raise NotFound(Code.BENCHMARK_NOT_FOUND, f"There is no benchmark {name!r:.80}.", "id")
        return self._runs[name]

    def file(self, name: str, file: str) -> Path:
        """The path of RESULT or REPORT of a run. Raises NotFound, and Conflict while the run is running."""
        run, path = self.run(name), self._folder / name / file
        if run.status == "running":
            raise Conflict(
                Code.BENCHMARK_RUNNING,
                f"The benchmark {name} is still running, so it has no result yet.",
                "id",
            )
        if not path.is_file():
            raise NotFound(
                Code.RESULT_NOT_FOUND, f"The benchmark {name} has no such file: it {ENDED[run.status]}.", "id"
            )
        return path

    def start(self, plan: BenchmarkPlan, url: str) -> BenchmarkRun:
        """Start a run against this server's own `url`. Raises Conflict if one is running, and Busy."""
        if self._task is not None or self._is_closed:
            raise Conflict(
                Code.BENCHMARK_RUNNING,
                "A benchmark is already running, and only one can run at a time. Wait or cancel it.",
            )
        if self._is_busy() and not plan.force:
            raise Busy(
                Code.SERVER_BUSY,
                f"{self.traffic.real} other requests are in flight, and a benchmark starts only while there "
                f"are at most {self._limits.in_flight}, because it slows them. Try again later, or send "
                '"force": true.',
                "force",
            )
        run = BenchmarkRun(f"bench-{time.time_ns():016x}", int(time.time()), plan.to_json())
        with storage_faults():
            self._hidden(run).mkdir(parents=True)
        self._runs[run.id] = run
        self._task = asyncio.create_task(self._work(run, plan, url))
        return run

    async def cancel(self, name: str) -> BenchmarkRun:
        """Return when its process has ended. Raises NotFound, and Conflict if it is not running."""
        run = self.run(name)
        if run.status != "running":
            raise Conflict(
                Code.BENCHMARK_NOT_RUNNING,
                f"The benchmark {name} cannot be cancelled: it {ENDED[run.status]} already.",
                "id",
            )
        await self._end()
        return run

    async def close(self) -> None:
        """End the running benchmark, and refuse to start another. May be called again."""
        self._is_closed = True
        await self._end()

    async def _end(self) -> None:
        task = self._task
        if task is None:
            return
        # A task that is cancelled before its first step would not set the status of its run.
        await asyncio.sleep(0)
        if not task.cancelling():  # a second cancellation would interrupt the cleanup
            task.cancel()
        await asyncio.wait({task})

    def _hidden(self, run: BenchmarkRun) -> Path:
        return self._folder / f".{run.id}"

    def _is_busy(self) -> bool:
        return self.traffic.real > self._limits.in_flight

    async def _work(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> None:
        logger.info("benchmark %s begins", run.id)
        try:
            await self._supervise(run, plan, url)
        except asyncio.CancelledError:
            run.end("cancelled")
        except OSError as error:
            run.end(
                "failed", "benchmark_not_started", f"The benchmark could not be started: {error.strerror}."
            )
        finally:
            self.traffic.close()
            self._task = None
            self._store(run)
            logger.info("benchmark %s %s", run.id, run.status)

    async def _supervise(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> None:
        """Return when the run has ended by itself, or was ended by its time limit or by user traffic."""
        following = asyncio.create_task(self._follow(run, plan, url))
        busy = asyncio.create_task(self._wait_until_busy(plan))
        both = {following, busy}
        seconds = plan.max_seconds + self._limits.grace_seconds
        try:
            done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if following in done:
            _record_exit(run, following.result(), has_result=(self._hidden(run) / RESULT).is_file())
        elif busy in done:
            run.end(
                "yielded",
                Code.SERVER_BUSY,
                "The benchmark was ended because other requests needed the server.",
            )
        else:
            run.end(
                "failed",
                "benchmark_timed_out",
                f"The benchmark was ended after its time limit of {seconds:g} seconds.",
            )

    async def _follow(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> Exit:
        folder = self._hidden(run).resolve()
        files = ["--output", str(folder / RESULT), "--html", str(folder / REPORT)]
        argv = [*self._command, "--url", url, *files, "--progress", "json", *plan.arguments()]
        return await follow(argv, folder, _environment(self.traffic.open()), lambda p: _progress(run, p))

    async def _wait_until_busy(self, plan: BenchmarkPlan) -> None:
        """Return when there was too much user traffic for `yield_seconds`. Never returns with `force`."""
        not_busy = time.monotonic()
        while plan.force or time.monotonic() - not_busy < self._limits.yield_seconds:
            await asyncio.sleep(min(POLL_SECONDS, self._limits.yield_seconds))
            if not self._is_busy():
                not_busy = time.monotonic()

    def _store(self, run: BenchmarkRun) -> None:
        """Rename the hidden folder, with only the files of a finished run, and delete the oldest runs."""
        hidden = self._hidden(run)
        by_itself = run.status == "succeeded" or (run.error or {}).get("code") == "benchmark_failed"
        for path in hidden.iterdir():
            if not by_itself or path.name not in {RESULT, REPORT}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (hidden / RECORD).write_text(json.dumps(asdict(run)))
        hidden.rename(self._folder / run.id)
        for old in self.runs()[KEPT_RUNS:]:
            shutil.rmtree(self._folder / old.id)
            del self._runs[old.id]


def _progress(run: BenchmarkRun, progress: dict[str, Any]) -> None:
    run.progress = progress


def _record_exit(run: BenchmarkRun, exit_: Exit, *, has_result: bool) -> None:
    if exit_.code == 0 and has_result:
        run.end("succeeded")
    else:
        run.end(
            "failed",
            "benchmark_failed",
            exit_.stderr or f"The benchmark ended with code {exit_.code} and wrote no error message.",
        )


def _environment(key: str) -> dict[str, str]:
    """This process's environment, with the run's key, our own code first, and no proxy."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"LORA_COMPOSE_API_KEY": key, "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **own, "NO_PROXY": "*", "no_proxy": "*"}


def _read(folder: Path) -> dict[str, BenchmarkRun]:
    """The runs on disk. Folders of unfinished runs, left by a server that was killed, are deleted."""
    for path in folder.glob(".bench-*"):
        logger.warning("benchmark %s was not finished when its server ended", path.name[1:])
        shutil.rmtree(path)
    runs = {}
    for path in folder.glob(f"bench-*/{RECORD}"):
        try:
            run = BenchmarkRun(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            logger.warning(
                "the record of benchmark %s cannot be read: the benchmark is not listed", path.parent.name
            )
            continue
        runs[run.id] = run
    return runs
