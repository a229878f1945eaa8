"""Kills real processes while they change a registry, and checks the state that the next start finds.

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
"""The share of kills at a random time. The others are before a system call."""


@dataclass
class Tally:
    """The results of the kills in one operation."""

    operation: str
    calls: int
    """Number of its system calls that change a file. A process can be killed before each of them."""
    at_calls: int = 0
    at_moments: int = 0
    before: int = 0
    after: int = 0
    between: int = 0
    lost: int = 0
    """Kills after the operation had returned, where the next start did not find its result."""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One operation, the directory that it starts from, and the states before and after it."""

    operation: Operation
    template: Path
    before: State
    after: State
    calls: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, operation: Operation, filled: Path, work: Path) -> "Bench":
        """Run the operation once to its end, to get its final state and its system calls."""
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
    """Run `count` kills, spread evenly over the operations."""
    random_numbers = random.Random(seed)
    fill(work / "filled", work / "adapters" / "tiny")
    all_operations = operations(work / "adapters" / "tiny")
    tallies = []
    for number, operation in enumerate(
        track(all_operations, "killing", console=Console(stderr=True), transient=True)
    ):
        share = count * (number + 1) // len(all_operations) - count * number // len(all_operations)
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
            assert ended.calls == bench.calls[:number], "the system calls differ from those of the first run"
            tally.at_calls += 1
            _judge(bench, home, ended, tally, f"before call {number}, {ended.calls[-1]}")
    for _ in range(count - tally.at_calls):
        moment = random_numbers.uniform(0, 1.1 * bench.seconds)
        with bench.copy(work) as home:
            ended = killed_after(bench.operation.start, home, moment)
            tally.at_moments += 1
            _judge(bench, home, ended, tally, f"{moment * 1e6:.0f} µs after its start")
    return tally


def _judge(bench: Bench, home: Path, ended: Ended, tally: Tally, where: str) -> None:
    try:
        for fault in _faults(bench, home, ended, tally):
            tally.faults.append(f"killed {where}: {fault}")
    except Exception as error:  # noqa: BLE001  every exception of the next start is a finding
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
        yield f"the state is neither the one before nor the one after: {_difference(found, bench.before)}"
    if ended.acknowledged and found != bench.after:
        tally.lost += 1
        yield "the operation had returned, but its result is lost"
    _do_again(bench, home, done=found == bench.after)
    if reopened_state(home) != bench.after:
        yield "doing the operation again leads to another state"


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
    count: Annotated[int, typer.Option(min=1, help="Number of processes to kill.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the system calls and times to kill at.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
) -> None:
    """Kill processes that change a registry. Each must leave the state before or the state after the change.

    Three of four processes are killed before a system call that changes a file. The seed selects the call
    from all calls of the operation; a large enough --count kills before every call. The other processes are
    killed at a random time.

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
