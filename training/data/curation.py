"""Curation: one step after another, each a row of a table, each saying how many rows it touched.

Masking comes first, since two rows may differ in nothing but an address. A second pass changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data import outliers
from lora_compose.training.data import preference_checks as preferences
from lora_compose.training.data.layouts import Row
from lora_compose.training.data.near_duplicates import THRESHOLD, Seen
from lora_compose.training.data.pii import REGIONS, Masker
from lora_compose.training.data.rows import Rows, asked_text, changed, whole_text

EXAMPLES = 3


@dataclass(frozen=True)
class Options:
    """What a person may choose."""

    near: float = THRESHOLD
    """The Jaccard similarity from which two rows are one."""
    drop_leaks: bool = False
    """Drop rows that evaluation data hold too, in place of refusing."""
    mask: bool = True
    regions: Sequence[str] = REGIONS
    shortest: int = 1
    longest: int | None = None
    """Characters of an answer."""
    languages: Sequence[str] = ()
    """Keep only these, as ISO 639-1 codes; none keeps all."""
    balance_length: bool = False
    seed: int = 0


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    step: str
    touched: int
    dropped: int
    examples: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Curated:
    """The rows that are left, and how it came to that."""

    rows: list[Row]
    against: Sequence[Rows]
    options: Options
    outcomes: list[StepResult] = field(default_factory=list)

    def drop(self, step: str, positions: Sequence[int], facts: dict[str, Any] | None = None) -> None:
        """These rows go."""
        gone = set(positions)
        shown = tuple(whole_text(self.rows[i]) for i in list(positions)[:EXAMPLES])
        self.rows = [row for i, row in enumerate(self.rows) if i not in gone]
        self.outcomes.append(StepResult(step, len(gone), len(gone), shown, facts or {}))

    def show(self, step: str, positions: Sequence[int], facts: dict[str, Any] | None = None) -> None:
        """These rows are told of, and stay."""
        shown = tuple(whole_text(self.rows[i]) for i in list(positions)[:EXAMPLES])
        self.outcomes.append(StepResult(step, len(positions), 0, shown, facts or {}))


def curate(
    rows: Rows, against: Sequence[Rows], options: Options, told: Callable[[str], None] = lambda _: None
) -> Curated:
    """Raises LoraComposeError("leaked") where evaluation rows are among the rows, unless they are dropped."""
    curated = Curated(list(rows.dataset), against, options)
    for name, step in STEPS.items():
        if rows.form == "preference" or step not in ONLY_PREFERENCES:
            told(name)
            step(curated)
    return curated


def _mask(curated: Curated) -> None:
    if not curated.options.mask:
        return
    masker = Masker(curated.options.regions)
    masked = [changed(row, masker.mask) for row in curated.rows]
    touched = [i for i, (old, new) in enumerate(zip(curated.rows, masked, strict=True)) if old != new]
    curated.rows = masked
    curated.show("personal data masked", touched, {"items": dict(masker.counts)})


def _exact(curated: Curated) -> None:
    seen, again = set[str](), []
    for i, row in enumerate(curated.rows):
        text = str({column: [m["content"] for m in messages] for column, messages in row.items()})
        key = " ".join(text.casefold().split())
        (again.append(i) if key in seen else seen.add(key))
    curated.drop("exact duplicates", again)


def _near(curated: Curated) -> None:
    seen, again = Seen(curated.options.near), []
    for i, row in enumerate(curated.rows):
        text = whole_text(row)
        if seen.same(text) is not None or seen.near(text) is not None:
            again.append(i)
        else:
            seen.add(i, text)
    curated.drop("near duplicates", again, {"similarity": curated.options.near})


def _leaks(curated: Curated) -> None:
    seen = Seen(curated.options.near)
    for number, row in enumerate(row for rows in curated.against for row in rows.dataset):
        seen.add(number, asked_text(row))
    asked = [asked_text(row) for row in curated.rows]
    found = [seen.same(text) if seen.same(text) is not None else seen.near(text) for text in asked]
    leaked = [i for i, number in enumerate(found) if number is not None]
    if leaked and not curated.options.drop_leaks:
        raise LoraComposeError(
            CommandCode.LEAKED,
            f"{len(leaked)} rows ask what evaluation data ask, the first {asked[leaked[0]][:80]!r}: a model "
            "trained on them is not evaluated by them. --drop-leaks drops them.",
            "against",
        )
    curated.drop("in the evaluation data", leaked)


def _lengths(curated: Curated) -> None:
    curated.drop(
        "answers out of bounds",
        outliers.outside(curated.rows, curated.options.shortest, curated.options.longest),
    )
    if curated.rows:
        curated.show("unusual lengths", outliers.far_lengths(curated.rows))


def _languages(curated: Curated) -> None:
    found = outliers.languages(curated.rows)
    facts = {"languages": dict(Counter(found).most_common())}
    if curated.options.languages:
        wanted = {*curated.options.languages, "?"}
        curated.drop(
            "other languages", [i for i, language in enumerate(found) if language not in wanted], facts
        )
        return
    rare = outliers.rare_languages(found)
    curated.show("rare languages", [i for i, language in enumerate(found) if language in rare], facts)


def _skew(curated: Curated) -> None:
    """The first word of what is asked stands for the topic, the answer itself for the label."""
    topics = Counter((asked_text(row).split() or [""])[0].casefold() for row in curated.rows)
    told = Counter(next(iter(_answers(row)), "") for row in curated.rows)
    facts = {"topics": dict(topics.most_common(5)), "answers": dict(told.most_common(5))}
    most = told.most_common(1)[0][1] if told else 0
    often = [i for i, row in enumerate(curated.rows) if told[next(iter(_answers(row)), "")] == most > 1]
    curated.show("the most frequent answer", often, facts)


def _answers(row: Row) -> list[str]:
    column = next(name for name in ("completion", "messages", "chosen") if name in row)
    return [message["content"] for message in row[column] if message["role"] == "assistant"]


def _pairs(curated: Curated) -> None:
    curated.drop("preferred to itself", preferences.identical(curated.rows))
    curated.drop("contradicting another pair", preferences.contradictory(curated.rows))


def _length_bias(curated: Curated) -> None:
    if not curated.rows:
        return
    bias = preferences.length_bias(curated.rows)
    facts = {"accuracy_of_length_alone": round(bias.accuracy, 4), "fires": bias.fires}
    facts |= {"mean_difference": round(bias.mean_difference, 2)}
    if bias.fires and curated.options.balance_length:
        keep = set(preferences.balanced(curated.rows, curated.options.seed))
        curated.drop("length bias", [i for i in range(len(curated.rows)) if i not in keep], facts)
    else:
        curated.show("length bias", [], facts)


Step = Callable[[Curated], None]
STEPS: dict[str, Step] = {
    "mask": _mask,
    "exact": _exact,
    "pairs": _pairs,
    "near": _near,
    "leaks": _leaks,
    "lengths": _lengths,
    "languages": _languages,
    "skew": _skew,
    "length bias": _length_bias,
}
ONLY_PREFERENCES = (_pairs, _length_bias)
