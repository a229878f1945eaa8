"""Runs mixed traffic with random faults, and checks that nothing is lost, answered wrongly, or leaked.

python -m tests.campaigns.soak --minutes 30 --output soak.json --plot soak.png
"""

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import httpx
import typer

from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.machine import describe
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.soaking.expected_state import CONTENTS, PARTNER, ExpectedState
from tests.campaigns.soaking.fault_injection import FaultInjector
from tests.campaigns.soaking.plot import plot as plotted
from tests.campaigns.soaking.registry_changes import RegistryChanger, listed
from tests.campaigns.soaking.requests import Answer, Requester, learn, prompts
from tests.campaigns.soaking.sampling import BOUNDS, Sampler, growth
from tests.campaigns.soaking.verdict import judge
from tests.running_server import RunningServer

OPTIONS = ["--adapter-root", str(ADAPTERS_DIR), "--max-cpu-loras", "10", "--hang-seconds", "20"]
CLIENTS = 4
CHANGE_SECONDS, FAULT_SECONDS, SAMPLE_SECONDS = 1.5, 40.0, 5.0
SHOWN_ANSWERS = 5


@dataclass
class Soak:
    """One soak of one server: clients, a client that changes the registry, faults and samples."""

    server: RunningServer
    data_dir: Path
    http: httpx.AsyncClient
    seed: int

    async def run(self, seconds: float, fault_seconds: float) -> dict[str, Any]:
        """Run the soak. Returns the findings, without those that need a restart."""
        known, pool, answers = ExpectedState(), prompts(self.seed), list[Answer]()
        await self._register(known)
        await learn(self.http, known, pool)
        began = monotonic()
        changer = RegistryChanger(self.http, known, self._draw("changes"))
        injector = FaultInjector(self.server, self.data_dir, self.http, changer, self._draw("faults"))
        sampler = Sampler(self.server, self.data_dir, self.http, began)
        clients = [
            Requester(self.http, known, pool, self._draw(f"asker {n}"), answers) for n in range(CLIENTS)
        ]
        await _for_seconds(
            seconds,
            changer.run(CHANGE_SECONDS),
            injector.run(fault_seconds),
            sampler.run(SAMPLE_SECONDS),
            *(client.run() for client in clients),
        )
        await injector.ready()
        done = [answer for answer in answers if answer.ended]
        return {
            "answers": judge(done, injector.faults, known),
            "changes": dict(sorted(changer.outcomes.items())) | {"unsure": changer.unsure},
            "internal_errors": changer.internal,
            "faults": [
                {
                    "name": f.name,
                    "at": round(f.began - began, 1),
                    "told": f.outcomes,
                    "seconds": _length(f.began, f.ended),
                }
                for f in injector.faults
            ],
            "expected_registry": known.registry(),
            "registry": await listed(self.http),
            "growth": {name: growth(sampler.samples, name) for name in BOUNDS},
            "samples": sampler.samples,
        }

    async def _register(self, known: ExpectedState) -> None:
        for name in (*CONTENTS, PARTNER):
            began, body = monotonic(), {"name": name, "path": str(ADAPTERS_DIR / name)}
            reply = (await self.http.post("/v1/adapters", json=body)).raise_for_status()
            known.registered(name, reply.json()["version"], name, began)

    def _draw(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}/{what}")


def _length(began: float, ended: float) -> float | None:
    return None if ended == float("inf") else round(ended - began, 1)


async def _for_seconds(seconds: float, *works: Coroutine[Any, Any, None]) -> None:
    """Run all `works` at the same time for `seconds`. Raises the first exception of any of them."""
    tasks = [asyncio.create_task(work) for work in works]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _soak(home: Path, seconds: float, fault_seconds: float, seed: int) -> dict[str, Any]:
    server = RunningServer.start(home / "data", home / "log", OPTIONS)
    try:
        server.wait_until_ready()
        async with open_client(server.url, 64) as http:
            found = await Soak(server, home / "data", http, seed).run(seconds, fault_seconds)
    finally:
        found_exit = server.stop()
    return found | {"exit_code": found_exit, "after_restart": await _after_restart(home)}


async def _after_restart(home: Path) -> dict[str, object]:
    server = RunningServer.start(home / "data", home / "log", OPTIONS)
    try:
        server.wait_until_ready()
        async with open_client(server.url, 4) as http:
            return await listed(http)
    finally:
        server.stop()


def verdict(found: dict[str, Any]) -> dict[str, bool]:
    """Whether each promise of the server was kept."""
    return {
        "nothing lost": found["registry"] == found["expected_registry"] == found["after_restart"],
        "nothing answered wrongly": not any(
            "wrong" in answer["verdict"] for answer in found["answers"]["bad"]
        ),
        "no failure without a reason": found["answers"]["bad_count"] == 0,
        "no internal error": not found["internal_errors"],
        "flat": all(slope is None or slope["is_flat"] for slope in found["growth"].values()),
        "ended cleanly": found["exit_code"] == 0,
    }


def main(
    minutes: Annotated[float, typer.Option(min=0.5, help="Minutes of traffic.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the requests, changes and faults.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the samples here.")] = None,
    fault_seconds: Annotated[float, typer.Option(help="Seconds between two faults.")] = FAULT_SECONDS,
    log: Annotated[Path | None, typer.Option(help="Copy the server's log here.")] = None,
) -> None:
    """Send requests, changes and faults to one real server.

    Exit code 1: something was lost, answered wrongly or leaked, or failed without a known reason.

    - `python -m tests.campaigns.soak --minutes 30 --output soak.json --plot docs/soak.png`
    - `python -m tests.campaigns.soak --minutes 1 --fault-seconds 5`
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        try:
            found = asyncio.run(_soak(Path(home), 60 * minutes, fault_seconds, seed))
        finally:
            if log is not None:
                log.write_bytes((Path(home) / "log").read_bytes())
    found |= {"minutes": minutes, "seed": seed, "machine": describe(), "verdict": verdict(found)}
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")
    if plot is not None:
        plotted(found, plot)
    _show(found)
    raise typer.Exit(0 if all(found["verdict"].values()) else 1)


def _show(found: dict[str, Any]) -> None:
    faults = Counter(fault["name"] for fault in found["faults"])
    typer.echo(f"answers {found['answers']['counts']} {found['answers']['whole_by_kind']}")
    typer.echo(f"changes {found['changes']}\nfaults {dict(faults)}")
    for name, slope in found["growth"].items():
        typer.echo(f"growth of {name} in an hour: {slope}")
    for bad in [*found["answers"]["bad"], *found["internal_errors"]][:SHOWN_ANSWERS]:
        typer.echo(str(bad))
    for name, holds in found["verdict"].items():
        typer.echo(f"{name}: {'yes' if holds else 'NO'}")


if __name__ == "__main__":
    typer.run(main)
