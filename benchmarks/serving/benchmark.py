"""A whole run, from servers to the result's JSON."""

import asyncio
import re
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import httpx

from lora_compose.benchmarks.machine import REPOSITORY, describe
from lora_compose.benchmarks.servers import ENVIRONMENT, server_environment
from lora_compose.benchmarks.serving.load import Words, words_of
from lora_compose.benchmarks.serving.results.document import BenchmarkResult, HeldAdapter, Machine, Timeline
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.benchmarks.serving.runner import Measured, Told, measuring
from lora_compose.benchmarks.serving.systems import SystemsUnderTest, running_targets, started_targets
from lora_compose.benchmarks.serving.timeline import RATE_SHARE, timeline
from lora_compose.server.client.http import Client


@dataclass(frozen=True)
class Where:
    """A server that is up, by its URL, or what to start servers with."""

    url: str | None
    names: tuple[str, ...]
    model: str
    root: Path
    options: tuple[str, ...] = ()
    api_key: str | None = None
    may_fuse: bool = False


def measure(plan: Plan, where: Where, told: Told) -> BenchmarkResult:
    """Raises LoraComposeError for a server that gets not ready or refuses a request."""
    began = perf_counter()
    with ExitStack() as stack:
        if where.url is not None:
            targets = running_targets(where.url, where.names, plan, where.api_key, where.may_fuse)
        else:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
            told(0, 1, "starting servers (about a minute)")
            targets = stack.enter_context(
                started_targets(plan, where.model, where.root, where.names, home, where.options)
            )
        with Client(targets.urls["lora-compose"], targets.api_key) as client:
            words = words_of(client, targets.base)
        measured, line = asyncio.run(_measure(plan, targets, words, told))
        memory = _memory(targets)
    started_commands = {name: list(map(without_paths, command)) for name, command in targets.commands.items()}
    words_of_command = [word for word in sys.argv[1:] if word not in {"bench", "serve"}]
    return BenchmarkResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(perf_counter() - began, 1),
        command=["lora-compose", "bench", "serve", *words_of_command],
        machine=Machine(**describe()),
        environment={name: value for name, value in server_environment().items() if name in ENVIRONMENT},
        started=where.url is None,
        commands=started_commands,
        base=targets.base,
        adapters=list(targets.adapters),
        skipped=dict(targets.skipped),
        plan=measured.plan,
        workload_digest=measured.workload_digest,
        truncated=measured.truncated,
        load_averages=measured.loads,
        passes=measured.passes,
        cold=measured.cold,
        switches=measured.switches,
        differences=measured.differences,
        unlike_base=measured.unlike_base,
        memory=memory,
        timeline=line,
        caveats=measured.caveats,
    )


def without_paths(word: str) -> str:
    """A word of a command line as it may be published: not where this checkout lies, and no temporaries."""
    word = word.replace(f"{Path(sys.executable).parent}/", "").replace(f"{REPOSITORY}/", "")
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/lora-compose-bench-[^/]*", "TMP", word)


async def _measure(
    plan: Plan, targets: SystemsUnderTest, words: Words, told: Told
) -> tuple[Measured, Timeline | None]:
    async with measuring(targets, plan, told) as run:
        measured = await run.run(words)
        if not plan.timeline_seconds or targets.root is None or not measured.plan.rates:
            return measured, None
        told(run.steps(), run.steps(), "timeline")
        rate = RATE_SHARE * max(measured.plan.rates)
        async with httpx.AsyncClient(base_url=targets.urls["lora-compose"], timeout=120) as client:
            line, refused = await timeline(client, targets, plan.timeline_seconds, rate, words, plan.seed)
        measured.caveats += refused
        return measured, line


def _memory(targets: SystemsUnderTest) -> list[HeldAdapter]:
    """Bytes of each adapter in the engine's host memory, as the workers say."""
    with Client(targets.urls["lora-compose"], targets.api_key) as client:
        resident = client.residency()["host"]["adapters"]
    return [HeldAdapter(**{key: one[key] for key in HeldAdapter.model_fields}) for one in resident]
