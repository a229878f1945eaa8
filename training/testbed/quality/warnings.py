"""How often the warnings of `adapters/merging/advice.py` are right on the pairs of a quality table.

A pair fails if less than KEPT of what a member does alone remains in the stack at weights of 1. A warning on
a failing pair is a hit. The rule's thresholds are in `advice.RULE`; run this again when a table is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lora_compose.adapters.composition.composition import Composition, Member
from lora_compose.adapters.merging.advice import RULE, Rule, advise
from lora_compose.adapters.merging.interference import interference
from lora_compose.training.testbed.measure import read_record
from lora_compose.training.testbed.paths import ADAPTERS_DIR, TESTBED_DIR
from lora_compose.training.testbed.quality.cells import cells_of

KEPT: Final = 0.9
NO_SHARES: Final[Mapping[str, float]] = {}
WARNS: Final = frozenset({"same_directions", "much_larger"})


@dataclass(frozen=True)
class Outcome:
    """One pair: what remains of its weaker member at weights of 1, and the warnings about it."""

    pair: str
    kept: float
    reasons: tuple[str, ...]
    cosine: float
    ratio: float

    @property
    def fails(self) -> bool:
        return self.kept < KEPT


@dataclass(frozen=True)
class Counts:
    """Pairs by warning and failure."""

    hits: int
    false_alarms: int
    missed: int
    quiet: int

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> "Counts":
        both = [(bool(one.reasons), one.fails) for one in outcomes]
        return cls(
            *(both.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))
        )

    @property
    def precision(self) -> float:
        """The share of warnings that were right; 0 without a warning."""
        return self.hits / max(1, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """The share of failing pairs with a warning; 0 if none fails."""
        return self.hits / max(1, self.hits + self.missed)


def outcomes(
    cells_by_pair: Mapping[str, Any],
    adapters: Path,
    rule: Rule = RULE,
    alone: Mapping[str, float] = NO_SHARES,
) -> list[Outcome]:
    """The outcome of every pair of one seed in a quality table (`cells_of`).

    `alone` has the share of right answers of each adapter alone; 1 where it is not known."""
    return [
        _outcome(label, _least_kept(cells["stack"]["members"], alone), adapters, rule)
        for label, cells in sorted(cells_by_pair.items())
        if label.count("+") == 1 and "stack" in cells
    ]


def _least_kept(members: Mapping[str, float], alone: Mapping[str, float]) -> float:
    return min(share / alone.get(name, 1.0) for name, share in members.items())


def shares_alone(file: Path) -> dict[str, float]:
    """The share of each adapter in a file of `smollm2/measure.py`: a skill's content, a style's form."""
    found = read_record(file).get("adapters", {})
    return {
        name: min(facts["adapter"]["content"], facts["adapter"]["style"]) for name, facts in found.items()
    }


def _outcome(label: str, kept: float, adapters: Path, rule: Rule) -> Outcome:
    names = label.split("+")
    found = interference([adapters / name for name in names])
    norms = sorted(strength.norm for strength in found.strengths)
    given = advise(Composition(tuple(map(Member, names))), found, rule)
    reasons = tuple(one.reason for one in given if one.reason in WARNS)
    return Outcome(label, kept, reasons, found.pairs[0].cosine, norms[1] / norms[0])


def main(
    file: Annotated[Path, typer.Option(help="A quality table.")] = TESTBED_DIR / "quality.json",
    adapters: Annotated[Path, typer.Option(help="Directory of its adapters.")] = ADAPTERS_DIR,
    alone: Annotated[
        Path | None, typer.Option(help="What each adapter does alone, such as smollm2/measured.json.")
    ] = None,
) -> None:
    """Print the pairs with their warnings, and the precision and recall of the rule.

    - python -m lora_compose.training.testbed.quality.warnings
    """
    found = outcomes(cells_of(file, 0), adapters, RULE, shares_alone(alone) if alone else NO_SHARES)
    for one in sorted(found, key=lambda one: one.kept):
        shown = f"cosine {one.cosine:+.3f}  ratio {one.ratio:.2f}  {', '.join(one.reasons)}"
        typer.echo(f"{one.kept:.2f}  {one.pair:15} {shown}")
    counts = Counts.of(found)
    typer.echo(f"precision {counts.precision:.2f}, recall {counts.recall:.2f}: {counts}")


if __name__ == "__main__":
    typer.run(main)
