"""Labels that say whether an answer is good or bad, for one answer without the other of a pair.

`sft` refuses rows that are labelled as bad. `kto` learns from good and bad rows (`unpaired.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import BadRow, DataRejected
from lora_compose.training.data.records import SourceRecord

COLUMNS: Final = (
    "label",
    "kto_tag",
    "desirable",
    "is_desirable",
    "is_good",
    "good",
    "feedback",
    "thumbs",
    "thumb",
    "thumbs_up",
    "vote",
    "liked",
    "accepted",
)
"""Columns that say it: `label` in TRL, `kto_tag` in LLaMA-Factory."""
RATINGS: Final = ("rating", "score", "stars", "reward")
"""Columns with numbers that say how good an answer is."""
GOOD: Final = (
    "1",
    "1.0",
    "+1",
    "true",
    "good",
    "chosen",
    "desirable",
    "up",
    "thumbs_up",
    "thumbs up",
    "thumbsup",
    "👍",
)
BAD: Final = (
    "0",
    "0.0",
    "-1",
    "-1.0",
    "false",
    "bad",
    "rejected",
    "undesirable",
    "down",
    "thumbs_down",
    "thumbs down",
    "thumbsdown",
    "👎",
)
MORE_GOOD: Final = ("yes", "y", "like", "liked", "accept", "accepted", "positive", "helpful", "correct")
MORE_BAD: Final = ("no", "n", "dislike", "disliked", "reject", "negative", "unhelpful", "incorrect", "wrong")
"""Words that are labels only where labels are expected. In other data they may be the class of a text."""
MODIFIERS: Final = dict.fromkeys([0xFE0F, *range(0x1F3FB, 0x1F400)])
"""Variation selector and skin tones of 👍 and 👎."""
SHOWN: Final = 6
"""At most this many values of a label are shown in a message."""


@dataclass(frozen=True)
class LabelRule:
    """Where the label is and which of its values mean good. The default finds both."""

    column: str | None = None
    good_from: float | None = None
    """Numbers from this one on are good, smaller ones are bad."""
    good_labels: tuple[str, ...] = ()
    """These values are good, all others are bad."""


IsGood = Callable[[object], bool]
"""Whether the value of a label means good. Raises BadRow."""


def label_column(records: Sequence[SourceRecord], rule: LabelRule) -> str | None:
    """The column with the labels, in lower case. None if no column is known to be one."""
    present = {str(name).strip().casefold() for record in records for name in record.fields or {}}
    if rule.column is not None:
        wanted = rule.column.strip().casefold()
        return wanted if wanted in present else None
    return next((column for column in (*COLUMNS, *RATINGS) if column in present), None)


def label_reader(source: str, column: str, records: Sequence[SourceRecord], rule: LabelRule) -> IsGood:
    """How the values of a column are read. Raises DataRejected("unclear_labels") if they need a rule."""
    if rule.good_labels:
        good = {_plain(label) for label in rule.good_labels}
        return lambda value: _plain(value) in good
    if rule.good_from is not None:
        threshold = rule.good_from
        return lambda value: _number(value, column) >= threshold
    values = [value for record in records if (value := value_of(record, column)) is not None]
    known = sum(_plain(value) in WORDS for value in values)
    if known * 2 > len(values):
        return lambda value: _word(value, column)
    counts = Counter(_plain(value) for value in values).most_common(SHOWN)
    shown = ", ".join(f"{value!r} ({count})" for value, count in counts)
    numbers = all(_is_number(value) for value, _ in counts)
    how = (
        "Say from which number on an answer is good, for example --good-from 4"
        if numbers
        else "Name the good ones, for example --good-labels accepted"
    )
    raise DataRejected(
        CommandCode.UNCLEAR_LABELS,
        f"{source}: the column {column} has the values {shown}, which do not say good or bad. {how}",
        "good_from" if numbers else "good_labels",
    )


def refuse_bad_answers(source: str, records: Sequence[SourceRecord]) -> None:
    """Raise DataRejected("wrong_form") if a column marks answers as good and bad, and some are bad.

    A column that also has other values is not such a label: it may be the class of a text.
    """
    for column, labels in _marking(records):
        bad = sum(label in BAD for label in labels)
        if bad:
            raise DataRejected(
                CommandCode.WRONG_FORM,
                f"{source} marks {bad} of {len(labels)} answers as bad in the column {column}. Without this "
                "mark, training would teach the bad answers too. Use `lora-compose train kto`, which learns "
                "from good and bad answers (KTO), or keep only the good answers. If the column has another "
                "meaning, rename it",
                "source",
            )


def marking_column(records: Sequence[SourceRecord]) -> str | None:
    """The column, in lower case, that marks answers as good or bad, or None.

    Its name is one of COLUMNS, and all its values are in GOOD or BAD. Empty cells do not count.
    """
    return next((column for column, _ in _marking(records)), None)


def _marking(records: Sequence[SourceRecord]) -> Iterator[tuple[str, list[str]]]:
    """Every column that marks answers, with its labels."""
    for column in COLUMNS:
        labels = [_plain(value) for record in records if (value := value_of(record, column)) is not None]
        labels = [label for label in labels if label]
        if labels and all(label in GOOD or label in BAD for label in labels):
            yield column, labels


def value_of(record: SourceRecord, column: str) -> object:
    """The value of a column, whose name may be written with capitals. None without such a column."""
    fields = record.fields or {}
    return next((held for name, held in fields.items() if str(name).strip().casefold() == column), None)


def count_labels(labels: Sequence[bool]) -> tuple[int, int]:
    """The numbers of good and of bad answers."""
    good = sum(labels)
    return good, len(labels) - good


WORDS: Final = {**dict.fromkeys((*GOOD, *MORE_GOOD), True), **dict.fromkeys((*BAD, *MORE_BAD), False)}


def _plain(value: object) -> str:
    return str(value).strip().translate(MODIFIERS).casefold()


def _word(value: object, column: str) -> bool:
    found = WORDS.get(_plain(value))
    if found is None:
        raise BadRow(f"{column} is {value!r}, which says neither good nor bad")
    return found


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _number(value: object, column: str) -> float:
    if isinstance(value, bool) or not _is_number(value):
        raise BadRow(f"{column} is {value!r}, not a number")
    number = float(str(value))
    if number != number:
        raise BadRow(f"{column} is not a number")
    return number
