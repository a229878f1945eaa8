"""`python -m benchmarks.referee_traps`: what `vllm.benchmarks.serve` does not say, measured.

Its answer to a server that is planted to answer wrongly, beside our client's; and the first tokens of
adapters nobody has used yet, after its own warm-up.
"""

import asyncio
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import typer

from benchmarks.client import open_client
from benchmarks.fresh_adapters import write_fresh
from benchmarks.latency.sender import Sending, send_pass
from benchmarks.planted_server import STREAMS, planted_server
from benchmarks.referee import BASE
from benchmarks.referee_process import Load, Referee, started
from benchmarks.servers import EMBEDDED_BASE, our_command, running
from benchmarks.workload import completion_body
from server.client.http import Client
from server.client.process import free_port

REQUESTS = 8
CAPACITY = 8
NO_CHECK = ("--ready-check-timeout-sec", "0")


def wrong_answers(referee: Referee) -> list[dict[str, Any]]:
    """By kind of wrong answer, how many of `REQUESTS` each of the two counts as completed."""
    found = []
    with planted_server() as url:
        for kind in STREAMS:
            load = Load(kind, 2, REQUESTS, 8, 32, 0)
            theirs = referee.run(url, str(EMBEDDED_BASE), load, NO_CHECK)
            ours = asyncio.run(_completed(url, kind))
            found.append({"answer": kind, "vllm bench": theirs["completed"], "ours": ours, "of": REQUESTS})
    return found


async def _completed(url: str, model: str) -> int:
    body = completion_body(model, "abcdefgh", 32, stream=True)
    async with open_client(url, 2) as client:
        rows, _ = await send_pass(client, [Sending(body)] * REQUESTS, 2)
    return sum(row.failure is None for row in rows)


def cold_adapters(referee: Referee, home: Path) -> dict[str, Any]:
    """Each of `CAPACITY` adapters asked twice, in turn: median milliseconds to the first token, by time.

    As many others fill the host memory before, so that none of these is prepared when it is registered.
    """
    root, port = home / "adapters", free_port()
    root.mkdir()
    paths = write_fresh(2 * CAPACITY, root)
    options = ["--max-cpu-loras", str(CAPACITY)]
    command = our_command(port, str(EMBEDDED_BASE), home, root, options)
    with running(command, port, home / "server.log") as server:
        server.wait_until_ready()
        with Client(server.url) as client:
            for path in paths:
                client.register({"name": path.name, "path": str(path)})
        names = [path.name for path in paths[CAPACITY:]]
        load = Load(BASE, 1, 2 * CAPACITY, 8, 8, 0)
        assigned = ["--lora-modules", *names, "--lora-assignment", "round-robin"]
        found = referee.run(server.url, str(EMBEDDED_BASE), load, assigned)
    times = [1000 * seconds for seconds in found["ttfts"]]
    return {
        "first_ask_ms": median(times[:CAPACITY]),
        "second_ask_ms": median(times[CAPACITY:]),
        "reported_median_ms": found["median_ttft_ms"],
        "reported_p99_ms": found["p99_ttft_ms"],
    }


def traps() -> None:
    """Print both as one line of JSON."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        referee = stack.enter_context(started(home))
        found = {"wrong_answers": wrong_answers(referee), "cold_adapters": cold_adapters(referee, home)}
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(traps)
