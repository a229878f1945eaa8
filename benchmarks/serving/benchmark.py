"""Runs a whole benchmark: starts or finds the servers, measures, and returns the result."""

import asyncio
import re
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx

from lora_compose.benchmarks.machine import REPOSITORY, describe
from lora_compose.benchmarks.servers import recorded_environment
from lora_compose.benchmarks.serving.budget import Budget
from lora_compose.benchmarks.serving.load import Words, words_of
from lora_compose.benchmarks.serving.measured import Measured
from lora_compose.benchmarks.serving.results.document import BenchmarkResult, HeldAdapter, Machine, Timeline
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.benchmarks.serving.runner import OnProgress, open_runner
from lora_compose.benchmarks.serving.systems import SystemsUnderTest, Where, running_systems, started_systems
from lora_compose.benchmarks.serving.timeline import RATE_SHARE, timeline
from lora_compose.server.client.http import Client


def measure(plan: Plan, where: Where, on_progress: OnProgress) -> BenchmarkResult:
    """Run `plan`. Raises LoraComposeError if a server does not become ready or refuses a request."""
    budget = Budget(plan.max_seconds)
    with ExitStack() as stack:
        if where.url is not None:
            systems = running_systems(where.url, where.names, plan, where.api_key, where.may_fuse)
        else:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
            on_progress(0, None, "starting servers (about a minute)")
            systems = stack.enter_context(started_systems(plan, where, home))
        with Client(systems.urls["lora-compose"], systems.api_key) as client:
            words = words_of(client, systems.base)
        measured, line = asyncio.run(_measure(plan, systems, words, budget, on_progress))
        memory = _memory(systems)
    started_commands = {name: list(map(without_paths, command)) for name, command in systems.commands.items()}
    words_of_command = [word for word in sys.argv[1:] if word not in {"bench", "serve"}]
    return BenchmarkResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(budget.spent, 1),
        command=["lora-compose", "bench", "serve", *words_of_command],
        machine=_machine(systems),
        environment=recorded_environment(where.model),
        started=where.url is None,
        commands=started_commands,
        base=systems.base,
        adapters=list(systems.adapters),
        skipped={**systems.skipped, **measured.left_out},
        plan=measured.plan,
        workload_digest=measured.workload_digest,
        truncated=measured.truncated,
        load_averages=measured.loads,
        others_busy=measured.others_busy,
        stolen=measured.stolen,
        passes=measured.passes,
        cold=measured.cold,
        switches=measured.switches,
        differences=measured.differences,
        unlike_base=measured.unlike_base,
        memory=memory,
        timeline=line,
        caveats=measured.caveats,
    )


def _machine(systems: SystemsUnderTest) -> Machine:
    machine = Machine(**describe())
    return machine.model_copy(update={"versions": {**machine.versions, **systems.versions}})


def without_paths(word: str) -> str:
    """A word of a command line without the paths of this checkout and of temporary directories."""
    word = word.replace(f"{Path(sys.executable).parent}/", "").replace(f"{REPOSITORY}/", "")
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/lora-compose-bench-[^/]*", "TMP", word)


async def _measure(
    plan: Plan, systems: SystemsUnderTest, words: Words, budget: Budget, on_progress: OnProgress
) -> tuple[Measured, Timeline | None]:
    async with open_runner(systems, plan, budget, on_progress) as runner:
        measured = await runner.run(words)
        if not plan.timeline_seconds or systems.root is None or not measured.plan.rates:
            return measured, None
        if not budget.allows("timeline", plan.timeline_seconds):
            measured.truncated = True
            return measured, None
        on_progress(runner.steps(), runner.steps(), "timeline")
        rate = RATE_SHARE * max(measured.plan.rates)
        async with httpx.AsyncClient(base_url=systems.urls["lora-compose"], timeout=120) as client:
            line, refused = await timeline(client, systems, plan.timeline_seconds, rate, words, plan.seed)
        measured.caveats += refused
        return measured, line


def _memory(systems: SystemsUnderTest) -> list[HeldAdapter]:
    """Bytes of each adapter in the engine's host memory, as the workers report them."""
    with Client(systems.urls["lora-compose"], systems.api_key) as client:
        resident = client.residency()["host"]["adapters"]
    return [HeldAdapter(**{key: adapter[key] for key in HeldAdapter.model_fields}) for adapter in resident]
