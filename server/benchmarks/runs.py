"""The benchmarks of this server: one at a time in a process beside it, and the newest results on disk.

A run works in a hidden folder that gets its name when it has ended, so a result is there whole or not at
all. It yields to real traffic, and ends with the server.
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
LOOK_SECONDS = 0.25

Status = Literal["running", "succeeded", "failed", "cancelled", "yielded"]


@dataclass(frozen=True)
class RunLimits:
    """How much a run may take, and how long."""

    in_flight: int
    """Other requests in flight beyond which it does not begin, and does not go on."""
    grace_seconds: float = 30.0
    """To end its last pass and write its result, after its plan's `max_seconds`."""
    yield_seconds: float = 5.0
    """Of too much real traffic, before it yields."""


@dataclass
class BenchmarkRun:
    """One benchmark, as told over HTTP."""

    id: str
    created: int
    plan: dict[str, Any]
    status: Status = "running"
    progress: dict[str, Any] | None = None
    error: dict[str, str] | None = None

    def end(self, status: Status, code: str = "", message: str = "") -> None:
        """It is over; with a code, say why."""
        self.status = status
        self.error = {"code": code, "message": message} if code else None


class Benchmarks:
    """Owner of the runs. `command` is followed by the arguments of each."""

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
        """The newest first."""
        return sorted(self._runs.values(), key=lambda run: run.id, reverse=True)

    def run(self, name: str) -> BenchmarkRun:
        """Raises NotFound("benchmark_not_found")."""
        if name not in self._runs:
            raise NotFound(Code.BENCHMARK_NOT_FOUND, f"There is no benchmark {name!r:.80}.", "id")
        return self._runs[name]

    def file(self, name: str, file: str) -> Path:
        """RESULT or REPORT of a run. Raises NotFound, and Conflict while it is running."""
        run, path = self.run(name), self._folder / name / file
        if run.status == "running":
            raise Conflict(Code.BENCHMARK_RUNNING, f"{name} is not finished yet.", "id")
        if not path.is_file():
            raise NotFound(Code.RESULT_NOT_FOUND, f"{name} ended without it: it is {run.status}.", "id")
        return path

    def start(self, plan: BenchmarkPlan, url: str) -> BenchmarkRun:
        """Begin one against this server's own `url`. Raises Conflict where one is running, Busy."""
        if self._task is not None or self._is_closed:
            raise Conflict(
                Code.BENCHMARK_RUNNING, "A benchmark is running; one at a time. Cancel it, or wait."
            )
        if self._is_crowded() and not plan.force:
            raise Busy(
                Code.SERVER_BUSY,
                f"{self.traffic.real} requests are in flight, and a benchmark would slow them: at most "
                f'{self._limits.in_flight} may be. Try again later, or send "force": true.',
                "force",
            )
        run = BenchmarkRun(f"bench-{time.time_ns():016x}", int(time.time()), plan.to_json())
        with storage_faults():
            self._hidden(run).mkdir(parents=True)
        self._runs[run.id] = run
        self._task = asyncio.create_task(self._work(run, plan, url))
        return run

    async def cancel(self, name: str) -> BenchmarkRun:
        """Returns when its process is gone. Raises NotFound, and Conflict where it is not running."""
        run = self.run(name)
        if run.status != "running":
            raise Conflict(Code.BENCHMARK_NOT_RUNNING, f"{name} has ended already: it is {run.status}.", "id")
        await self._end()
        return run

    async def close(self) -> None:
        """End what is running, and begin nothing more. May be called again."""
        self._is_closed = True
        await self._end()

    async def _end(self) -> None:
        task = self._task
        if task is None:
            return
        await asyncio.sleep(0)  # a task cancelled before its first step would leave its run as it is
        if not task.cancelling():  # a second time would interrupt the cleaning up
            task.cancel()
        await asyncio.wait({task})

    def _hidden(self, run: BenchmarkRun) -> Path:
        return self._folder / f".{run.id}"

    def _is_crowded(self) -> bool:
        return self.traffic.real > self._limits.in_flight

    async def _work(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> None:
        logger.info("benchmark %s begins", run.id)
        try:
            await self._attend(run, plan, url)
        except asyncio.CancelledError:
            run.end("cancelled")
        except OSError as error:
            run.end("failed", "benchmark_not_started", f"It could not be started: {error.strerror}.")
        finally:
            self.traffic.close()
            self._task = None
            self._put_away(run)
            logger.info("benchmark %s %s", run.id, run.status)

    async def _attend(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> None:
        """Until it ends, takes too long, or traffic needs the server; then it is gone."""
        following = asyncio.create_task(self._follow(run, plan, url))
        yielding = asyncio.create_task(self._crowded(plan))
        both = {following, yielding}
        seconds = plan.max_seconds + self._limits.grace_seconds
        try:
            done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if following in done:
            _tell_exit(run, following.result(), has_result=(self._hidden(run) / RESULT).is_file())
        elif yielding in done:
            run.end("yielded", Code.SERVER_BUSY, "It was ended: other requests needed the server.")
        else:
            run.end("failed", "benchmark_timed_out", f"It was ended after {seconds:g} seconds.")

    async def _follow(self, run: BenchmarkRun, plan: BenchmarkPlan, url: str) -> Exit:
        folder = self._hidden(run).resolve()
        files = ["--output", str(folder / RESULT), "--html", str(folder / REPORT)]
        argv = [*self._command, "--url", url, *files, "--progress", "json", *plan.arguments()]
        return await follow(argv, folder, _environment(self.traffic.open()), lambda p: _progress(run, p))

    async def _crowded(self, plan: BenchmarkPlan) -> None:
        """Returns when there has been too much real traffic for too long."""
        calm = time.monotonic()
        while plan.force or time.monotonic() - calm < self._limits.yield_seconds:
            await asyncio.sleep(min(LOOK_SECONDS, self._limits.yield_seconds))
            if not self._is_crowded():
                calm = time.monotonic()

    def _put_away(self, run: BenchmarkRun) -> None:
        """Give its folder its name, with what a finished run leaves; and forget the oldest run."""
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


def _tell_exit(run: BenchmarkRun, exit_: Exit, *, has_result: bool) -> None:
    if exit_.code == 0 and has_result:
        run.end("succeeded")
    else:
        run.end(
            "failed",
            "benchmark_failed",
            exit_.words or f"It ended with code {exit_.code}, without saying why.",
        )


def _environment(key: str) -> dict[str, str]:
    """Ours, with the run's key, our own code first, and no proxy on the way to ourselves."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"LORA_COMPOSE_API_KEY": key, "PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **own, "NO_PROXY": "*", "no_proxy": "*"}


def _read(folder: Path) -> dict[str, BenchmarkRun]:
    """The runs on disk. What a server that was killed left half-done is removed."""
    for path in folder.glob(".bench-*"):
        logger.warning("benchmark %s was not finished when its server ended", path.name[1:])
        shutil.rmtree(path)
    runs = {}
    for path in folder.glob(f"bench-*/{RECORD}"):
        try:
            run = BenchmarkRun(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            logger.warning("the record of benchmark %s cannot be read; it is left as it is", path.parent.name)
            continue
        runs[run.id] = run
    return runs
