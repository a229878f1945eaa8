"""Kills real processes in the middle of changing a registry, and looks at what the next start finds.

python -m tests.campaigns.kill_points --count 200 --seed 0 --output kill_points.json
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lora_compose.adapters.errors import NotFound
from tests.campaigns.operations import Operation, fill, operations
from tests.campaigns.registry_state import State, delete_home, reopened_state
from tests.campaigns.system_calls import Ended, killed_after, killed_before

AT_RANDOM_MOMENTS = 0.25
"""The share of points that come from outside, by the clock."""


@dataclass
class Tally:
    """What was found after the kills in one operation."""

    operation: str
    calls: int
    """How many system calls of it change a file: it has so many points, and the one after the last."""
    at_calls: int = 0
    at_moments: int = 0
    before: int = 0
    after: int = 0
    between: int = 0
    lost: int = 0
    """Kills after the operation had returned, and the next start did not find what it did."""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One operation, the directory it starts from, and the states on either side of it."""

    operation: Operation
    template: Path
    before: State
    after: State
    calls: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, operation: Operation, filled: Path, work: Path) -> "Bench":
        """Do it once to its end, for what it leads to and how many calls that takes."""
        template = work / "template" / operation.name.replace(" ", "-")
        if not operation.empty:
            shutil.copytree(filled, template)
        operation.prepare(template)
        bench = cls(operation, template, {}, {}, (), 0.0)
        with bench.copy(work) as home:
            ended = killed_before(operation.start, home, None)
            after = reopened_state(home)
        with bench.copy(work) as home:
            before = reopened_state(home)
        with bench.copy(work) as home:
            seconds = _seconds(operation, home)
        return cls(operation, template, before, after, ended.calls, seconds)

    def copy(self, work: Path) -> "_Copy":
        return _Copy(self.template, work / "home")


@dataclass(frozen=True)
class _Copy:
    template: Path
    home: Path

    def __enter__(self) -> Path:
        if self.template.exists():
            shutil.copytree(self.template, self.home)
        return self.home

    def __exit__(self, *_: object) -> None:
        delete_home(self.home)


def _seconds(operation: Operation, home: Path) -> float:
    work, end = operation.start(home)
    began = time.perf_counter()
    work()
    end()
    return time.perf_counter() - began


def run(count: int, seed: int, work: Path) -> list[Tally]:
    """`count` kills, spread evenly over the operations; where they have fewer calls, fewer kills."""
    random_numbers = random.Random(seed)
    fill(work / "filled", work / "adapters" / "tiny")
    every = operations(work / "adapters" / "tiny")
    tallies = []
    for number, operation in enumerate(track(every, "killing", console=Console(stderr=True), transient=True)):
        share = count * (number + 1) // len(every) - count * number // len(every)
        bench = Bench.of(operation, work / "filled", work)
        tallies.append(_kill(bench, share, random_numbers, work))
    return tallies


def _kill(bench: Bench, count: int, random_numbers: random.Random, work: Path) -> Tally:
    tally = Tally(bench.operation.name, len(bench.calls))
    moments = round(count * AT_RANDOM_MOMENTS)
    last = len(bench.calls)
    for number in sorted(random_numbers.sample(range(1, last + 1), min(count - moments, last))):
        with bench.copy(work) as home:
            ended = killed_before(bench.operation.start, home, number)
            assert ended.calls == bench.calls[:number], "another course than the first time"
            tally.at_calls += 1
            _judge(bench, home, ended, tally, f"before call {number}, {ended.calls[-1]}")
    for _ in range(count - tally.at_calls):
        moment = random_numbers.uniform(0, 1.1 * bench.seconds)
        with bench.copy(work) as home:
            ended = killed_after(bench.operation.start, home, moment)
            tally.at_moments += 1
            _judge(bench, home, ended, tally, f"{moment * 1e6:.0f} µs after its begin")
    return tally


def _judge(bench: Bench, home: Path, ended: Ended, tally: Tally, where: str) -> None:
    try:
        for fault in _faults(bench, home, ended, tally):
            tally.faults.append(f"killed {where}: {fault}")
    except Exception as error:  # noqa: BLE001  whatever the next start raises is what we look for
        tally.between += 1
        tally.faults.append(f"killed {where}: {type(error).__name__}: {error}")


def _faults(bench: Bench, home: Path, ended: Ended, tally: Tally) -> Iterator[str]:
    found = reopened_state(home)
    if found == bench.after:
        tally.after += 1
    elif found == bench.before:
        tally.before += 1
    else:
        tally.between += 1
        yield f"neither before nor after: {_difference(found, bench.before)}"
    if ended.acknowledged and found != bench.after:
        tally.lost += 1
        yield "it had returned, and its work is lost"
    _do_again(bench, home, done=found == bench.after)
    if reopened_state(home) != bench.after:
        yield "done again, it leads to another state"


def _do_again(bench: Bench, home: Path, done: bool) -> None:
    work, end = bench.operation.start(home)
    try:
        work()
    except NotFound:
        if not done:
            raise
    finally:
        end()


def _difference(found: State, other: State) -> str:
    parts = [
        f"{kind}.{key}: {found[kind].get(key)} against {other[kind].get(key)}"
        for kind in ("rows", "files")
        for key in sorted({*found[kind], *other[kind]})
        if found[kind].get(key) != other[kind].get(key)
    ]
    return "; ".join(parts)[:2000]


def _table(tallies: list[Tally]) -> Table:
    columns = ("calls", "at calls", "at moments", "before", "after", "between", "lost")
    table = Table("operation", *columns, box=None)
    for tally in tallies:
        table.add_row(*(str(value) for key, value in asdict(tally).items() if key != "faults"))
    return table


def main(
    count: Annotated[int, typer.Option(min=1, help="How many processes to kill.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides at which calls and moments.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the findings here, as JSON.")] = None,
) -> None:
    """Kill processes that change a registry; each must leave the state before or the state after.

    Three of four are killed before a system call that changes a file, chosen by the seed from all that the
    operation makes; with a large enough --count, before every one. The others are killed at any moment.

    - `python -m tests.campaigns.kill_points --count 200 --seed 0 --output kill_points.json`
    """
    with tempfile.TemporaryDirectory() as directory:
        tallies = run(count, seed, Path(directory))
        delete_home(Path(directory))
        Path(directory).mkdir()
    if output is not None:
        found = {"count": count, "seed": seed, "operations": [asdict(tally) for tally in tallies]}
        output.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    Console().print(_table(tallies))
    faults = [f"{tally.operation}, {fault}" for tally in tallies for fault in tally.faults]
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    typer.run(main)
