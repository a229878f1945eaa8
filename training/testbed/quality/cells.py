"""The cells of the quality tables: measured one after another, and written after each."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.composition.composition import Composition, Member
from lora_compose.training.testbed.measure import read_record, write_record
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.mixtures import Mixture
from lora_compose.training.testbed.quality.ways import WAYS, combine
from lora_compose.training.testbed.subject import Cell, Part, Subject
from lora_compose.training.tuning.tune import with_weights
from lora_compose.training.tuning.weight_search import Trial, Weights

SEARCHED: Final = "stack, searched"
"""The stack at weights that were searched on other held-out rows."""
MIXED: Final = "mixed"
"""One adapter trained on the data of all members."""
KIND_ORDER: Final = ("skill+style", "style+style", "skill+skill")
"""The kinds that are measured first."""


@dataclass(frozen=True)
class Job:
    """A cell to measure."""

    mixture: Mixture
    way: str


def jobs(subject: Subject) -> list[Job]:
    """All cells of a subject, the most important first: by kind, then by way."""
    mixtures = subject.mixtures()
    kinds = sorted({mixture.kind for mixture in mixtures}, key=_rank_of_kind)
    return [
        Job(mixture, way)
        for kind in kinds
        for way in (*subject.ways, SEARCHED, MIXED)
        for mixture in mixtures
        if mixture.kind == kind and _is_wanted(subject, mixture, way)
    ]


def _rank_of_kind(kind: str) -> tuple[int, str]:
    return (KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER)), kind


def _is_wanted(subject: Subject, mixture: Mixture, way: str) -> bool:
    if way == MIXED:
        return mixture in subject.mixed
    return way != SEARCHED or mixture.kind in subject.searched_kinds


@dataclass(frozen=True)
class Bench:
    """A subject, its loaded base, and its adapters of one training seed."""

    subject: Subject
    base: MergedBase
    seed: int

    def measure(self, job: Job) -> Cell:
        """The shares of one cell, as in the file of results."""
        if job.way == SEARCHED:
            return self._searched(job.mixture)
        with tempfile.TemporaryDirectory() as directory:
            if job.way == MIXED:
                adapter = self.subject.train_mixed(job.mixture, self.seed, Path(directory))
            else:
                adapter = WAYS[job.way].compose(self._members(job.mixture), Path(directory))
        with self.base.holding(adapter):
            return self.subject.shares(job.mixture, self.base.ask, "score")

    def stacked(self, mixture: Mixture, weights: Weights, part: Part) -> Cell:
        """The shares of the stack at `weights`, in the order of the mixture's members."""
        with tempfile.TemporaryDirectory() as directory:
            adapter = combine(WAYS["stack"], self._members(mixture), weights, Path(directory))
        with self.base.holding(adapter):
            return self.subject.shares(mixture, self.base.ask, part)

    def _members(self, mixture: Mixture) -> list[Path]:
        return [self.subject.adapters(self.seed) / name for name in mixture.members]

    def _searched(self, mixture: Mixture) -> dict[str, Any]:
        """The shares at the weights found, and the joint shares before and after on the searched rows."""
        tried: list[Trial] = []
        count = len(mixture.members)
        best = self.subject.search(
            count, lambda weights: float(self.stacked(mixture, weights, "tune")["joint"]), tried.append
        )
        by_name = dict(zip(mixture.members, best.weights, strict=True))
        named = Composition(tuple(Member(name) for name in sorted(mixture.members)))
        weights = tuple(by_name[member.name] for member in named.members)
        return {
            **self.stacked(mixture, best.weights, "score"),
            "composition": with_weights(named, weights).canonical,
            "trials": len(tried),
            "searched_before": next(trial.score for trial in tried if trial.weights == (1.0,) * count),
            "searched_after": best.score,
        }


def cells_of(file: Path, seed: int) -> dict[str, dict[str, Any]]:
    """The cells of a training seed in a file of results: mixture -> way -> cell."""
    cells: dict[str, dict[str, Any]] = read_record(file).get("seeds", {}).get(str(seed), {})
    return cells


def measure(subject: Subject, seed: int, wanted: list[Job]) -> Iterator[tuple[Job, Cell]]:
    """Measure the cells that the file of results does not hold yet, and write each there.

    The file is read again before it is written, so that two seeds can be measured at a time.
    """
    known = cells_of(subject.file, seed)
    missing = [job for job in wanted if job.way not in known.get(job.mixture.label, {})]
    if not missing:
        return
    bench = Bench(subject, subject.load(), seed)
    for job in missing:
        cell = bench.measure(job)
        seeds = read_record(subject.file).get("seeds", {})
        seeds.setdefault(str(seed), {}).setdefault(job.mixture.label, {})[job.way] = cell
        write_record(subject.file, "seeds", seeds)
        yield job, cell
