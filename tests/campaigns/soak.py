"""Mixed traffic with random faults: is anything lost, answered wrongly, or leaked?

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
from tests.campaigns.soaking.asking import Answer, Asking, learn, prompts
from tests.campaigns.soaking.breaking import Breaking
from tests.campaigns.soaking.changing import Changing, listed
from tests.campaigns.soaking.known import CONTENTS, PARTNER, Known
from tests.campaigns.soaking.picture import plot as plotted
from tests.campaigns.soaking.sampling import BOUNDS, Sampling, growth
from tests.campaigns.soaking.verdict import judged
from tests.running_server import RunningServer

OPTIONS = ["--adapter-root", str(ADAPTERS_DIR), "--max-cpu-loras", "10", "--hang-seconds", "20"]
ASKERS = 4
CHANGE_SECONDS, FAULT_SECONDS, SAMPLE_SECONDS = 1.5, 40.0, 5.0
TOLD_BAD = 5


@dataclass
class Soak:
    """All who work on one server."""

    server: RunningServer
    data_dir: Path
    http: httpx.AsyncClient
    seed: int

    async def run(self, seconds: float, fault_seconds: float) -> dict[str, Any]:
        """What was found, but for what a restart shows."""
        known, pool, answers = Known(), prompts(self.seed), list[Answer]()
        await self._register(known)
        await learn(self.http, known, pool)
        began = monotonic()
        changing = Changing(self.http, known, self._draw("changes"))
        breaking = Breaking(self.server, self.data_dir, self.http, changing, self._draw("faults"))
        sampling = Sampling(self.server, self.data_dir, self.http, began)
        asking = [Asking(self.http, known, pool, self._draw(f"asker {n}"), answers) for n in range(ASKERS)]
        await _for_seconds(
            seconds,
            changing.run(CHANGE_SECONDS),
            breaking.run(fault_seconds),
            sampling.run(SAMPLE_SECONDS),
            *(each.run() for each in asking),
        )
        await breaking.ready()
        done = [answer for answer in answers if answer.ended]
        return {
            "answers": judged(done, breaking.faults, known),
            "changes": dict(sorted(changing.told.items())) | {"unsure": changing.unsure},
            "internal_errors": changing.internal,
            "faults": [
                {
                    "name": f.name,
                    "at": round(f.began - began, 1),
                    "told": f.told,
                    "seconds": _length(f.began, f.ended),
                }
                for f in breaking.faults
            ],
            "expected_registry": known.registry(),
            "registry": await listed(self.http),
            "growth": {name: growth(sampling.samples, name) for name in BOUNDS},
            "samples": sampling.samples,
        }

    async def _register(self, known: Known) -> None:
        for name in (*CONTENTS, PARTNER):
            begun, body = monotonic(), {"name": name, "path": str(ADAPTERS_DIR / name)}
            reply = (await self.http.post("/v1/adapters", json=body)).raise_for_status()
            known.registered(name, reply.json()["version"], name, begun)

    def _draw(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}/{what}")


def _length(began: float, ended: float) -> float | None:
    return None if ended == float("inf") else round(ended - began, 1)


async def _for_seconds(seconds: float, *works: Coroutine[Any, Any, None]) -> None:
    """All of them at once; raises what one of them raises before."""
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
    """What the soak was for."""
    return {
        "nothing lost": found["registry"] == found["expected_registry"] == found["after_restart"],
        "nothing answered wrongly": not any("wrong" in one["verdict"] for one in found["answers"]["bad"]),
        "no failure without a reason": found["answers"]["bad_count"] == 0,
        "no internal error": not found["internal_errors"],
        "flat": all(one is None or one["is_flat"] for one in found["growth"].values()),
        "ended cleanly": found["exit_code"] == 0,
    }


def main(
    minutes: Annotated[float, typer.Option(min=0.5, help="Of traffic.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of what is asked, changed and broken.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write everything here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="And draw it here.")] = None,
    fault_seconds: Annotated[float, typer.Option(help="Between a fault and the next.")] = FAULT_SECONDS,
    log: Annotated[Path | None, typer.Option(help="Keep the server's log here.")] = None,
) -> None:
    """Ask, change and break one real server; exit code 1 for anything lost, wrong, leaked or unexplained.

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
    _tell(found)
    raise typer.Exit(0 if all(found["verdict"].values()) else 1)


def _tell(found: dict[str, Any]) -> None:
    faults = Counter(fault["name"] for fault in found["faults"])
    typer.echo(f"answers {found['answers']['counts']} {found['answers']['whole_by_kind']}")
    typer.echo(f"changes {found['changes']}\nfaults {dict(faults)}")
    for name, one in found["growth"].items():
        typer.echo(f"growth an hour of {name}: {one}")
    for one in [*found["answers"]["bad"], *found["internal_errors"]][:TOLD_BAD]:
        typer.echo(str(one))
    for name, holds in found["verdict"].items():
        typer.echo(f"{name}: {'yes' if holds else 'NO'}")


if __name__ == "__main__":
    typer.run(main)
