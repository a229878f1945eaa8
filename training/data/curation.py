"""Curation of training rows, in steps. Each step reports how many rows it changed or dropped.

The steps are the rows of STEPS. Masking is the first, because two rows may differ only in personal data.
Curating the result again changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data import outliers
from lora_compose.training.data import preference_checks as preferences
from lora_compose.training.data.layouts import LABEL, Form
from lora_compose.training.data.messages import Row, columns, said
from lora_compose.training.data.near_duplicates import THRESHOLD, Among, TextIndex, find_copies
from lora_compose.training.data.pii import REGIONS, Masker
from lora_compose.training.data.rows import (
    Rows,
    group_of,
    prompt_text,
    spoken_text,
    whole_text,
)

EXAMPLES = 3
EXAMPLE_CHARACTERS = 200
FEW = 20
"""If there are fewer rows, a step may drop any share."""
EXACT, NEAR = "exact duplicates", "near duplicates"
ITSELF, CONTRADICTING = "preferred to itself", "contradicting another pair"
BOTH_LABELS = "marked as good and as bad"
UNASKED = (EXACT, NEAR, ITSELF, CONTRADICTING, BOTH_LABELS)
"""The steps that drop rows without an option for it."""


@dataclass(frozen=True)
class Options:
    """The options of `lora-compose data curate`."""

    near: float = THRESHOLD
    """Rows with at least this Jaccard similarity are near duplicates."""
    drop_leaks: bool = False
    """Drop rows that are also in the evaluation data, instead of raising an error."""
    mask: bool = True
    mask_answers: bool = False
    """Also mask in answers what their prompts do not contain. The model then learns to write tags."""
    regions: Sequence[str] = REGIONS
    shortest: int = 1
    longest: int | None = None
    """Characters of an answer."""
    languages: Sequence[str] = ()
    """Keep only these languages, as ISO 639-1 codes. Empty: keep all."""
    balance_length: bool = False
    max_dropped: float = 0.5
    """The largest share of the rows that a step of UNASKED may drop."""
    seed: int = 0


@dataclass(frozen=True)
class StepResult:
    """The result of one step.

    `touched` counts the rows that were found, `dropped` those that were removed.
    """

    step: str
    touched: int
    dropped: int
    examples: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Curated:
    """The remaining rows, and the results of the steps so far."""

    rows: list[Row]
    against: Sequence[Rows]
    options: Options
    results: list[StepResult] = field(default_factory=list)

    def drop(
        self,
        step: str,
        positions: Sequence[int],
        facts: dict[str, Any] | None = None,
        examples: Sequence[str] | None = None,
    ) -> None:
        """Remove the rows at `positions`, and add the step's result.

        Raises LoraComposeError("too_many_dropped") if they are more than the allowed share, in a step that
        the user did not ask for.
        """
        dropped = set(positions)
        shown = tuple(examples or [whole_text(self.rows[i]) for i in positions[:EXAMPLES]])
        is_large = len(self.rows) >= FEW and len(dropped) > self.options.max_dropped * len(self.rows)
        if is_large and step in UNASKED:
            raise LoraComposeError(CommandCode.TOO_MANY_DROPPED, self._too_many(step, len(dropped), shown))
        self.rows = [row for i, row in enumerate(self.rows) if i not in dropped]
        self.results.append(StepResult(step, len(dropped), len(dropped), shown, facts or {}))

    def _too_many(self, step: str, count: int, examples: Sequence[str]) -> str:
        shown = "\n---\n".join(text[:EXAMPLE_CHARACTERS] for text in examples)
        return (
            f"The step {step!r} would drop {count} of {len(self.rows)} rows, which is more than "
            f"--max-dropped {self.options.max_dropped:g} allows. Nothing was written. The first are:\n"
            f"{shown}\nCheck them. To drop them, use --max-dropped 1"
        )

    def report(self, step: str, positions: Sequence[int], facts: dict[str, Any] | None = None) -> None:
        """Add the step's result. The rows at `positions` stay."""
        shown = tuple(whole_text(self.rows[i]) for i in list(positions)[:EXAMPLES])
        self.results.append(StepResult(step, len(positions), 0, shown, facts or {}))


def curate(
    rows: Rows,
    against: Sequence[Rows],
    options: Options,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Curated:
    """Run all steps; `on_progress` gets the name of each.

    Raises LoraComposeError("leaked") if rows are also in the evaluation data `against` and `drop_leaks` is
    off.
    """
    curated = Curated(list(rows.dataset), against, options)
    for name, step in STEPS.items():
        if ONLY.get(name, rows.form) == rows.form:
            on_progress(name)
            step(curated)
    return curated


def _mask(curated: Curated) -> None:
    if not curated.options.mask:
        return
    masker = Masker(curated.options.regions)
    masked = [masker.mask_row(row, answers=curated.options.mask_answers) for row in curated.rows]
    touched = [i for i, (old, new) in enumerate(zip(curated.rows, masked, strict=True)) if old != new]
    curated.rows = masked
    facts = {"items": dict(masker.counts), "left in answers": dict(masker.unmasked)}
    curated.report("personal data masked", touched, facts)


def _exact(curated: Curated) -> None:
    seen, duplicates = set[str](), []
    for i, row in enumerate(curated.rows):
        text = str({column: [said(m) for m in messages] for column, messages in columns(row).items()})
        key = " ".join(f"{row.get(LABEL)} {text}".casefold().split())
        (duplicates.append(i) if key in seen else seen.add(key))
    curated.drop(EXACT, duplicates)


def _near(curated: Curated) -> None:
    """Rows with different system messages are different rows. A good and a bad answer are different too."""
    texts = [(spoken_text(row), group_of(row)) for row in curated.rows]
    copies = find_copies(texts, curated.options.near)
    originals = dict(sorted((copies.exact | copies.near).items()))
    shown = [f"{texts[i][0]}\n≈\n{texts[j][0]}" for i, j in list(originals.items())[:EXAMPLES]]
    curated.drop(NEAR, list(originals), {"similarity": curated.options.near}, shown)


def _leaks(curated: Curated) -> None:
    evaluated = [prompt_text(row) for rows in curated.against for row in rows.dataset]
    texts = [prompt_text(row) for row in curated.rows]
    index = TextIndex([(text, "") for text in [*evaluated, *texts]], curated.options.near)
    known = range(len(evaluated))
    found = [_original(index, len(evaluated) + i, known.__contains__) for i in range(len(texts))]
    leaked = [i for i, number in enumerate(found) if number is not None]
    if leaked and not curated.options.drop_leaks:
        raise LoraComposeError(
            CommandCode.LEAKED,
            f"{len(leaked)} rows have the same questions as the evaluation data. The first is "
            f"{texts[leaked[0]][:80]!r}. A model must not be trained on them. Use --drop-leaks to drop them.",
            "against",
        )
    curated.drop("in the evaluation data", leaked)


def _original(index: TextIndex, number: int, among: Among) -> int | None:
    """The number of a text of `among` that is equal or a near duplicate, or None."""
    same = index.same(number, among)
    return index.near(number, among) if same is None else same


def _lengths(curated: Curated) -> None:
    curated.drop(
        "answers out of bounds",
        outliers.outside(curated.rows, curated.options.shortest, curated.options.longest),
    )
    if curated.rows:
        curated.report("unusual lengths", outliers.far_lengths(curated.rows))


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
    curated.report("rare languages", [i for i, language in enumerate(found) if language in rare], facts)


def _skew(curated: Curated) -> None:
    """Frequent topics and answers. The first word of the prompt is taken as the topic."""
    topics = Counter((prompt_text(row).split() or [""])[0].casefold() for row in curated.rows)
    counts = Counter(next(iter(_answers(row)), "") for row in curated.rows)
    facts = {"topics": dict(topics.most_common(5)), "answers": dict(counts.most_common(5))}
    most = counts.most_common(1)[0][1] if counts else 0
    often = [i for i, row in enumerate(curated.rows) if counts[next(iter(_answers(row)), "")] == most > 1]
    curated.report("the most frequent answer", often, facts)


def _answers(row: Row) -> list[str]:
    column = next(name for name in ("completion", "messages", "chosen") if name in row)
    return [said(message) for message in row[column] if message["role"] == "assistant"]


def _pairs(curated: Curated) -> None:
    curated.drop(ITSELF, preferences.identical(curated.rows))
    curated.drop(CONTRADICTING, preferences.contradictory(curated.rows))


def _labels(curated: Curated) -> None:
    curated.drop(BOTH_LABELS, preferences.with_both_labels(curated.rows))


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
        curated.report("length bias", [], facts)


Step = Callable[[Curated], None]
STEPS: dict[str, Step] = {
    "mask": _mask,
    "exact": _exact,
    "pairs": _pairs,
    "labels": _labels,
    "near": _near,
    "leaks": _leaks,
    "lengths": _lengths,
    "languages": _languages,
    "skew": _skew,
    "length bias": _length_bias,
}
ONLY: dict[str, Form] = {"pairs": "preference", "labels": "unpaired", "length bias": "preference"}
"""The steps for the rows of one form."""
