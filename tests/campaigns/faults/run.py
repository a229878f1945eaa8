"""Every fault we know, tried on a real server of its own.

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
    """A server with keys, that nobody else uses, with the adapters a campaign counts on."""
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
    """The outcome of each."""
    total = sum(len(fault.variants) for fault in faults)
    with (
        tempfile.TemporaryDirectory() as home,
        own_target(Path(home)) as target,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("trying faults", total=total)
        return [tried(target, fault, each, lambda: progress.advance(task)) for fault in faults]


def main(
    output: Annotated[Path | None, typer.Option(help="Write what came of it here, as JSON.")] = None,
    only: Annotated[str, typer.Option(help="Only faults whose title has this in it.")] = "",
    each: Annotated[bool, typer.Option(help="Look round after every variant, not every fault.")] = True,
) -> None:
    """Try every fault we know on a server of its own, and look round after each.

    - `python -m tests.campaigns.faults.run --output faults.json`
    - `python -m tests.campaigns.faults.run --only "A name" --no-each`
    """
    outcomes = campaign([fault for fault in FAULTS if only.lower() in fault.title.lower()], each)
    if output is not None:
        found: dict[str, Any] = {"looked_round": "after each variant" if each else "after each fault"}
        found |= {"faults": [asdict(one) for one in outcomes]}
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for one in outcomes:
        replies = ", ".join(f"{reply} × {count}" for reply, count in sorted(one.replies.items()))
        typer.echo(
            f"{'✗' if one.wrong else '✓'} {one.title} ({one.variants}, {one.seconds:.1f} s): {replies}"
        )
    wrong = [f"{one.title}: {finding}" for one in outcomes for finding in one.wrong]
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
