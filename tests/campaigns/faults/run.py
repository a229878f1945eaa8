"""Tries every known fault on a real server.

python -m tests.campaigns.faults.run --output faults.json
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from lora_compose.server.client.process import COMMAND
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.faults.fault import Fault, Outcome
from tests.campaigns.faults.machine import kill_engine
from tests.campaigns.faults.target import NAMES, Target, serve, warm_up
from tests.campaigns.faults.trial import FAULTS, tried

KEYS = {"operator": ["--role", "admin"], "inference": [], "revoked": []}


@contextmanager
def own_target(home: Path) -> Iterator[Target]:
    """A server with keys that only this campaign uses, with the adapters that the faults need."""
    root = home / "root"
    root.mkdir()
    secrets = {
        name: json.loads(_key(home, "create", name, *options, "--json"))["secret"]
        for name, options in KEYS.items()
    }
    _key(home, "revoke", "revoked")
    server = serve(home, root, ["--hang-seconds", "20"])
    try:
        server.wait_until_ready()
        target = Target(server, home / "data", root, secrets)
        for name in NAMES:
            assert target.register(ADAPTERS_DIR / name, name).status_code == 201
        warm_up(target)
        kill_engine(target)
        yield target
    finally:
        server.stop()


def _key(home: Path, *arguments: str) -> str:
    command = [COMMAND, "keys", *arguments, "--data-dir", str(home / "data")]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def campaign(faults: list[Fault], each: bool) -> list[Outcome]:
    """The outcome of each fault."""
    total = sum(len(fault.variants) for fault in faults)
    with (
        tempfile.TemporaryDirectory() as home,
        own_target(Path(home)) as target,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("trying faults", total=total)
        return [tried(target, fault, each, lambda: progress.advance(task)) for fault in faults]


def main(
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    only: Annotated[str, typer.Option(help="Try only faults whose title contains this text.")] = "",
    each: Annotated[
        bool, typer.Option(help="Check the server after every variant, instead of after every fault.")
    ] = True,
) -> None:
    """Try every known fault on a new server, and check the server after each.

    - `python -m tests.campaigns.faults.run --output faults.json`
    - `python -m tests.campaigns.faults.run --only "A name" --no-each`
    """
    outcomes = campaign([fault for fault in FAULTS if only.lower() in fault.title.lower()], each)
    if output is not None:
        found: dict[str, Any] = {"looked_round": "after each variant" if each else "after each fault"}
        found |= {"faults": [asdict(outcome) for outcome in outcomes]}
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for outcome in outcomes:
        replies = ", ".join(f"{reply} × {count}" for reply, count in sorted(outcome.replies.items()))
        mark = "✗" if outcome.wrong else "✓"
        typer.echo(f"{mark} {outcome.title} ({outcome.variants}, {outcome.seconds:.1f} s): {replies}")
    wrong = [f"{outcome.title}: {finding}" for outcome in outcomes for finding in outcome.wrong]
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
