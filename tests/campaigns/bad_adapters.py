"""Registers thousands of damaged adapters. Every adapter that is accepted must also be valid for PEFT.

python -m tests.campaigns.bad_adapters --count 10000 --seed 0 --output bad_adapters.json
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

import psutil
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lora_compose.adapters.admission.admit import AdmissionLimits
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected, Forbidden
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.metrics import Metrics
from lora_compose.server.registration import Offer, Registration
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from tests.campaigns.mutations import damage
from tests.campaigns.peft_oracle import PeftOracle

MAX_SECONDS, MAX_BYTES = 1.0, 256 << 20
MAX_LORA_RANK = 64


@dataclass
class Tally:
    """Counts of the outcomes. `faults` lists behaviour that must never occur."""

    count: int
    seed: int
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    by_mutation: dict[str, dict[str, int]] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    most_bytes: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, mutations: list[str], outcome: str) -> None:
        """`outcome` is "accepted" or the error code of a refusal."""
        if outcome == "accepted":
            self.accepted += 1
        else:
            self.refused[outcome] = self.refused.get(outcome, 0) + 1
        for mutation in mutations:
            counts = self.by_mutation.setdefault(mutation, {})
            counts[outcome] = counts.get(outcome, 0) + 1


@dataclass
class AdmissionProbe:
    """Registers adapters, and measures time, memory, descriptors and leftover files."""

    registration: Registration
    registry: Registry
    oracle: PeftOracle
    tally: Tally

    def register(self, directory: Path, mutations: list[str], where: str) -> None:
        """Register one adapter and check everything about it."""
        files = psutil.Process().num_fds()
        with _memory() as grown:
            began = time.perf_counter()
            outcome = self._outcome(directory, where)
            seconds = time.perf_counter() - began
        self.tally.note(mutations, outcome)
        self.tally.slowest_seconds = max(self.tally.slowest_seconds, seconds)
        self.tally.most_bytes = max(self.tally.most_bytes, grown[0])
        if outcome == "accepted":
            self._compare_with_peft(directory, where)
        self._check_leftovers(files, where)
        if seconds > MAX_SECONDS or grown[0] > MAX_BYTES:
            self.tally.faults.append(f"{where}: {seconds:.2f} s, {grown[0] >> 20} MB")

    def _outcome(self, directory: Path, where: str) -> str:
        try:
            self.registration.from_path(Offer("case"), str(directory))
        except (AdapterRejected, Forbidden) as refusal:
            return refusal.code
        except Exception as error:  # noqa: BLE001  the finding
            self.tally.faults.append(f"{where}: {type(error).__name__}: {error}")
            return "raised"
        return "accepted"

    def _compare_with_peft(self, directory: Path, where: str) -> None:
        if reason := self.oracle.why_not(directory):
            self.tally.faults.append(f"{where}: accepted, and PEFT says: {reason}")
        self.registry.remove("case")
        self.registry.sweep()

    def _check_leftovers(self, files: int, where: str) -> None:
        if self.registry.names() or any(self.registry.staging_dir.iterdir()):
            self.tally.faults.append(f"{where}: an adapter or temporary files are left")
        if psutil.Process().num_fds() > files:
            self.tally.faults.append(f"{where}: descriptors are left open")


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Measures the peak growth of the process's memory in bytes.

    It is the first entry when the context closes.
    """
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, grown = _status("VmRSS"), [0]
    yield grown
    grown[0] = max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


@contextmanager
def open_registration(home: Path, root: Path) -> Iterator[Registration]:
    """The real registration with a new registry, for the embedded base."""
    with Registry(home) as registry:
        yield Registration(
            registry=registry,
            base=BaseShapes.of(BASE_DIR, "testbed-base"),
            limits=AdmissionLimits(max_lora_rank=MAX_LORA_RANK, dtype=torch.float32),
            adapter_roots=(root,),
            allow_hf=False,
            metrics=Metrics(),
            changed=lambda: None,
        )


def run(count: int, seed: int, work: Path) -> Tally:
    """Register `count` damaged adapters. The damage depends on the seed and the number of the adapter."""
    root = work / "root"
    root.mkdir()
    good = sorted(ADAPTERS_DIR.iterdir())
    tally = Tally(count, seed)
    with open_registration(work / "data", root) as registration:
        probe = AdmissionProbe(
            registration, registration.registry, PeftOracle(BASE_DIR, MAX_LORA_RANK), tally
        )
        probe.register(_copy(good[0], root), ["none"], "undamaged")  # loads everything that is loaded once
        assert tally.accepted == 1, "the undamaged adapter was refused"
        tally.slowest_seconds, tally.most_bytes = 0.0, 0
        console = Console(stderr=True)
        for number in track(range(count), "offering", console=console, transient=True):
            random = Random(f"{seed}/{number}")
            directory = _copy(random.choice(good), root)
            mutations = damage(random, directory)
            probe.register(directory, mutations, f"{number} ({', '.join(mutations)})")
    return tally


def _copy(good: Path, root: Path) -> Path:
    shutil.rmtree(root / "case", ignore_errors=True)
    return Path(shutil.copytree(good, root / "case"))


def _table(tally: Tally) -> Table:
    table = Table("mutation", "offered", "accepted", "refused as", box=None)
    for mutation, outcomes in sorted(tally.by_mutation.items()):
        most_first = sorted(outcomes.items(), key=lambda pair: -pair[1])
        codes = ", ".join(f"{code} {count}" for code, count in most_first if code != "accepted")
        table.add_row(mutation, str(sum(outcomes.values())), str(outcomes.get("accepted", 0)), codes)
    return table


def main(
    count: Annotated[int, typer.Option(min=1, help="Number of adapters to register.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the damage.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
) -> None:
    """Register damaged adapters. PEFT must be able to load every accepted adapter unchanged.

    - `python -m tests.campaigns.bad_adapters --count 10000 --seed 0 --output bad_adapters.json`
    """
    with tempfile.TemporaryDirectory() as directory:
        tally = run(count, seed, Path(directory))
    if output is not None:
        output.write_text(json.dumps(asdict(tally), indent=1, ensure_ascii=False) + "\n")
    Console().print(_table(tally))
    typer.echo(
        f"{tally.count} registered, {tally.accepted} accepted; slowest {tally.slowest_seconds:.2f} s, "
        f"most memory {tally.most_bytes >> 20} MB"
    )
    sys.exit("\n".join(tally.faults) if tally.faults else 0)


if __name__ == "__main__":
    typer.run(main)
