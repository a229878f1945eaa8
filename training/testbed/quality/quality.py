"""Measure how much of each member remains in all pairs and triples of the testbed, for every way of
combining.

It runs offline, in one process. adapters/merging/merge.py builds a composition, its deltas are added to the
embedded base's weights, and the model is asked about held-out words. quality.json is written after every
mixture, and docs/composition-quality.md at the end.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from lora_compose.adapters.composition.composition import MethodOptions
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.testbed.measure import read_record, write_record
from lora_compose.training.testbed.mixtures import Mixture, all_mixtures
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, BASE_NAME, TESTBED_DIR
from lora_compose.training.testbed.quality.baselines import MIXED, MergedBase, train_mixed, tuned
from lora_compose.training.testbed.quality.page import write_page
from lora_compose.training.testbed.quality.shares import shares_of

QUALITY_FILE: Final = TESTBED_DIR / "quality.json"
PAGE: Final = TESTBED_DIR.parent.parent / "docs" / "composition-quality.md"
MEMBER_RANK: Final = 8
DENSITY: Final = 0.5


@dataclass(frozen=True)
class Way:
    """A way of combining: a row of METHODS with its options."""

    method: str
    rank_each: int | None = None
    """The rank of the result divided by the number of members. None means the method's default."""
    density: float | None = None
    mean: bool = False
    """Whether the weights are 1/k, for k members, in place of 1."""

    def compose(self, mixture: Mixture, adapters: Path, output: Path) -> Lora:
        weight = 1 / len(mixture.members) if self.mean else 1.0
        rank = self.rank_each and self.rank_each * len(mixture.members)
        members = [MergeInput(adapters / name, weight) for name in mixture.members]
        build(
            self.method, members, MethodOptions(rank=rank, density=self.density), output, MergeBase(BASE_NAME)
        )
        return open_adapter(output)


WAYS: Final[dict[str, Way]] = {
    "stack": Way("stack"),
    "linear": Way("linear"),
    "linear, mean": Way("linear", mean=True),
    "svd": Way("svd"),
    "cat→svd": Way("svd", rank_each=MEMBER_RANK * 3 // 4),
    "ties": Way("ties", density=DENSITY),
    "dare_ties": Way("dare_ties", density=DENSITY),
}


def measure_way(testbed: MergedBase, mixture: Mixture, way: Way, n: int, seed: int) -> dict[str, Any]:
    """The shares of one mixture for one way of combining, as in quality.json."""
    with tempfile.TemporaryDirectory() as directory:
        adapter = way.compose(mixture, ADAPTERS_DIR, Path(directory))
    with testbed.holding(adapter):
        return asdict(shares_of(mixture, testbed.ask, n, seed))


def measure_mixed(testbed: MergedBase, mixture: Mixture, n: int, seed: int) -> dict[str, Any]:
    """The shares of one adapter trained on the data of all members, as in quality.json."""
    with tempfile.TemporaryDirectory() as directory:
        adapter = train_mixed(mixture, BASE_DIR, Path(directory))
    with testbed.holding(adapter):
        return asdict(shares_of(mixture, testbed.ask, n, seed))


def measure(mixtures: Sequence[Mixture], file: Path, n: int, seed: int) -> None:
    """Measure what `file` does not hold yet, and write it there."""
    found: dict[str, dict[str, Any]] = read_record(file).get("kept", {})
    testbed = MergedBase(BASE_DIR)
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        for mixture in bar.track(mixtures, description="combining and measuring"):
            cells = found.setdefault(mixture.label, {})
            missing = [name for name in WAYS if name not in cells]
            cells |= {name: measure_way(testbed, mixture, WAYS[name], n, seed) for name in missing}
            write_record(file, "kept", found)
        mixed = [mixture for mixture in MIXED if mixture in mixtures and "mixed" not in found[mixture.label]]
        for mixture in bar.track(mixed, description="training on the data of all members"):
            found[mixture.label]["mixed"] = measure_mixed(testbed, mixture, n, seed)
            write_record(file, "kept", found)


def measure_tuned(mixtures: Sequence[Mixture], file: Path, n: int, seed: int) -> None:
    """Tune the weights of every pair of `mixtures` that `file` does not hold yet."""
    found: dict[str, Any] = read_record(file).get("tuned", {})
    testbed = MergedBase(BASE_DIR)
    screen = Console(stderr=True)
    pairs = [mixture for mixture in mixtures if len(mixture.members) == 2 and mixture.label not in found]
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        for mixture in bar.track(pairs, description="searching weights"):
            found[mixture.label] = tuned(testbed, mixture, n, seed)
            write_record(file, "tuned", found)


def main(
    sizes: Annotated[
        list[int] | None,
        typer.Option(min=2, max=3, help="2 for pairs, 3 for triples; by default both. Repeatable."),
    ] = None,
    file: Annotated[
        Path, typer.Option(help="File of results. Results in it are not measured again.")
    ] = QUALITY_FILE,
    page: Annotated[Path, typer.Option(help="The Markdown page to write.")] = PAGE,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts for each skill.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the held-out words.")] = 1000,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Measure every pair and triple of the testbed's adapters for every way of combining them.

    Takes about a quarter of an hour.

    - python -m lora_compose.training.testbed.quality
    - python -m lora_compose.training.testbed.quality --sizes 2
    """
    torch.set_num_threads(threads)
    asked = {"n": n, "seed": seed, "density": DENSITY}
    record = read_record(file)
    if record.get("asked", asked) != asked:
        raise typer.BadParameter(
            f"{file} has results of other settings ({record['asked']}). Remove it, or give another --file"
        )
    write_record(file, "asked", asked)
    mixtures = [mixture for size in sizes or (2, 3) for mixture in all_mixtures(size)]
    measure(mixtures, file, n, seed)
    measure_tuned(mixtures, file, n, seed)
    write_page(read_record(file), page)
    typer.echo(f"Wrote {file} and {page}")
