"""`python -m lora_compose.benchmarks.studies.hot_load` measures how registering adapters delays running
streams.

Streams decode all the time. Windows without and with registrations alternate, and every gap between two
chunks of a stream is recorded. Stock vLLM is measured in the same way. In each round the servers are measured
one after the other.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Annotated

import httpx
import numpy as np
import typer

from lora_compose.benchmarks.checks import BoundCheck, at_most, show
from lora_compose.benchmarks.servers import (
    EMBEDDED_BASE,
    our_command,
    running,
    stock_command,
    stock_environment,
)
from lora_compose.benchmarks.serving.load import DATA, Lines, Sending, receive, send_one
from lora_compose.benchmarks.synthetic import write_fresh
from lora_compose.benchmarks.workload import Prompts, completion_body
from lora_compose.server.client.process import free_port
from lora_compose.server.cpu_defaults import is_cpu_build

OURS = "lora-compose"
STREAMS = 6
ANSWER_TOKENS = 600
Register = Callable[[httpx.AsyncClient, str, Path], Awaitable[httpx.Response]]


@dataclass
class Window:
    """One window: gaps in seconds between chunks of the background streams, and first answers of new
    adapters.
    """

    answers: list[Lines] = field(default_factory=list)
    """Lines of the answers of the background streams, each with its arrival time by `perf_counter`."""
    gaps: list[float] = field(default_factory=list)
    first_answers: list[float] = field(default_factory=list)
    failures: int = 0


async def register_ours(client: httpx.AsyncClient, name: str, path: Path) -> httpx.Response:
    """Register an adapter on our server."""
    return await client.post("/v1/adapters", json={"name": name, "path": str(path)})


async def register_stock(client: httpx.AsyncClient, name: str, path: Path) -> httpx.Response:
    """Load an adapter on stock vLLM."""
    return await client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})


async def stream(client: httpx.AsyncClient, base: str, prompts: Prompts, window: Window) -> None:
    """Request one answer after another until cancelled."""
    while True:
        (prompt,) = prompts.take(1, 32)
        body = completion_body(base, prompt, ANSWER_TOKENS, stream=True)
        lines: Lines = []
        window.answers.append(lines)
        await receive(client, body, lines, perf_counter)


def gaps_since(began: float, answers: Sequence[Lines]) -> list[float]:
    """The gaps in seconds between two chunks of an answer. Gaps that ended before `began` are left out."""
    arrivals = [[when for when, line in lines if line.startswith(f"{DATA}{{")] for lines in answers]
    return [b - a for times in arrivals for a, b in itertools.pairwise(times) if b >= began]


async def measure(
    client: httpx.AsyncClient, base: str, seconds: float, fresh: list[Path], register: Register, seed: int
) -> Window:
    """Measure one window. The adapters in `fresh` are registered and used at regular times in it."""
    window, prompts = Window(), Prompts(seed)
    streams = [asyncio.create_task(stream(client, base, prompts, window)) for _ in range(STREAMS)]
    await asyncio.sleep(1.0)
    began = perf_counter()
    for number, path in enumerate(fresh):
        await asyncio.sleep(max(0.0, began + number * seconds / len(fresh) - perf_counter()))
        reply = await register(client, path.name, path)
        if not reply.is_success:
            window.failures += 1
            continue
        row = await send_one(client, Sending(completion_body(path.name, "roll table", 4, stream=True)))
        window.failures += row.failure is not None
        if row.times:
            window.first_answers.append(row.times[0] - row.sent)
    await asyncio.sleep(max(0.0, began + seconds - perf_counter()))
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    window.gaps = gaps_since(began, window.answers)
    return window


def checks(name: str, quiet: list[Window], busy: list[Window], *, bounds: bool) -> list[BoundCheck]:
    """Compare the gaps of all windows without registrations (`quiet`) and with registrations (`busy`).

    The ratios with bounds are p99 with over p99 without, and the longest gap over the p99 of the same
    windows.
    """
    gaps = [sorted(gap for window in windows for gap in window.gaps) for windows in (quiet, busy)]
    p99 = [float(np.quantile(values, 0.99)) for values in gaps]
    firsts = [first for window in busy for first in window.first_answers]
    results = [
        BoundCheck(f"{name}: gaps without registrations, p50 / p99 / longest", _quantiles(gaps[0])),
        BoundCheck(f"{name}: gaps with registrations, p50 / p99 / longest", _quantiles(gaps[1])),
        at_most(f"{name}: p99 with / p99 without", p99[1] / p99[0], 1.5),
        at_most(f"{name}: longest gap with / p99 with", gaps[1][-1] / p99[1], 3.0),
        BoundCheck(f"{name}: longest gap without / p99 without", f"{gaps[0][-1] / p99[0]:.3g}"),
        BoundCheck(f"{name}: first tokens of new adapters, p50 / p99 / longest", _quantiles(sorted(firsts))),
        BoundCheck(f"{name}: failed requests", str(sum(window.failures for window in busy))),
    ]
    return results if bounds else [BoundCheck(check.name, check.value) for check in results]


def _quantiles(values: list[float]) -> str:
    if not values:
        return "-"
    return " / ".join(f"{1000 * np.quantile(values, q):.1f}" for q in (0.5, 0.99, 1.0)) + " ms"


async def study(
    urls: dict[str, str], root: Path, rounds: int, seconds: float, adapters: int
) -> list[BoundCheck]:
    """Measure a window without and a window with registrations on each server, `rounds` times."""
    windows: dict[str, tuple[list[Window], list[Window]]] = {name: ([], []) for name in urls}
    for number, (name, url) in itertools.product(range(rounds), urls.items()):
        register = register_ours if name == OURS else register_stock
        fresh = write_fresh(adapters // rounds, root, seed=100 * number + len(name))
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            base = (await client.get("/v1/models")).json()["data"][0]["id"]
            for kind, paths in enumerate(([], fresh)):
                windows[name][kind].append(await measure(client, base, seconds, paths, register, number))
    return [
        check
        for name, (quiet, busy) in windows.items()
        for check in checks(name, quiet, busy, bounds=name == OURS)
    ]


def hot_load(
    rounds: Annotated[
        int, typer.Option(help="Number of rounds. Each has a window without and one with registrations.")
    ] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 10.0,
    adapters: Annotated[
        int, typer.Option(help="Number of adapters that are registered and used, in all windows together.")
    ] = 50,
    stock: Annotated[bool, typer.Option(help="Also measure stock vLLM.")] = True,
) -> None:
    """Measure the gaps between the tokens of running streams while adapters are registered and first used."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        root = home / "adapters"
        root.mkdir()
        ports = free_port(), free_port()
        model = str(EMBEDDED_BASE)
        command = our_command(ports[0], model, home, root, [])
        servers = {OURS: stack.enter_context(running(command, model, ports[0], home / "ours.log"))}
        if stock:
            command = stock_command(ports[1], model, is_cpu_build())
            servers["stock vLLM"] = stack.enter_context(
                running(command, model, ports[1], home / "stock.log", stock_environment())
            )
        for server in servers.values():
            server.wait_until_ready()
        urls = {name: server.url for name, server in servers.items()}
        results = asyncio.run(study(urls, root, rounds, seconds, adapters))
    title = f"{adapters} adapters are registered while {STREAMS} streams decode"
    show(title, results, {"benchmark": "hot_load", "rounds": rounds, "seconds": seconds})


if __name__ == "__main__":
    typer.run(hot_load)
