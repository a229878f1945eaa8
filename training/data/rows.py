"""Read a supported source into one of TRL's forms.

A source with bad rows is refused, with their files and lines.

A file has one layout (`layouts.py`), the one that most of its rows fit. Rows that do not fit it are bad.
Columns that the layout does not use are left out of the data set and counted in `Rows.left_out`. The texts of
a normalised row, for comparing and masking, are here too.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import BadRow, DataRejected
from lora_compose.training.data.layouts import (
    COLUMNS,
    KNOWN,
    SHAREGPT_KEYS,
    Form,
    Layout,
    Row,
    extra_keys,
    matching_layouts,
)
from lora_compose.training.data.sources import SourceRecord, read_records

LISTED: Final = 10
"""At most this many bad rows are listed in the message."""


@dataclass(frozen=True)
class Rows:
    """Normalised rows. Each column of their form holds a list of `{"role", "content"}`."""

    source: str
    form: Form
    dataset: Any
    """A `datasets.Dataset`."""
    digest: str
    """sha256 of the canonical JSON of the rows in order."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Columns that were left out, and the number of rows that had them.

    Keys of messages are `messages[].key`.
    """


def read_rows(source: str) -> Rows:
    """The rows of a `.jsonl`, `.json`, `.csv` or `.parquet` file, a saved data set or a hub id.

    If a data set has several splits, name one: `DIR#train`. Raises DataRejected: `bad_row` lists up to ten
    rows as `file:line: reason`. For Parquet files and data sets, the line is the row, counted from 1.
    """
    records = list(read_records(source))
    if not records:
        raise DataRejected(CommandCode.NO_ROWS, f"{source} has no rows", "source")
    layout = _layout_of(source, records)
    rows: list[Row] = []
    faults: list[str] = []
    left_out: Counter[str] = Counter()
    for record in records:
        try:
            rows.append(_normalised(record, layout))
            left_out.update(_unused(record.fields or {}, layout))
        except BadRow as fault:
            faults.append(f"{record.place}: {fault}")
    if faults:
        raise DataRejected(CommandCode.BAD_ROW, _listed(faults, len(records)), "source")
    return as_rows(source, layout.form, rows, dict(sorted(left_out.items())))


def as_rows(source: str, form: Form, rows: Sequence[Row], left_out: dict[str, int] | None = None) -> Rows:
    """Normalised rows as a data set with its digest. An empty data set still has its columns."""
    from datasets import Dataset, Features, List, Value

    message = {"role": Value("string"), "content": Value("string")}
    features = Features({column: List(message) for column in COLUMNS[form]})
    columns = {column: [row[column] for row in rows] for column in COLUMNS[form]}
    dataset = Dataset.from_dict(columns, features=features)
    return Rows(source, form, dataset, digest_of(rows), left_out or {})


def digest_of(rows: Iterable[Row]) -> str:
    """sha256 of the rows as lines of JSON with sorted keys and no spaces."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _layout_of(source: str, records: Sequence[SourceRecord]) -> Layout:
    """The layout that most rows fit. If two are equally common, the one that occurs first."""
    votes: Counter[tuple[Layout, ...]] = Counter(
        matching_layouts(record.fields) for record in records if record.fields
    )
    votes.pop((), None)
    if not votes:
        faults = [f"{record.place}: {record.fault}" for record in records if record.fault]
        if faults:
            raise DataRejected(CommandCode.BAD_ROW, _listed(faults, len(records)), "source")
        columns = ", ".join(next((record.fields for record in records if record.fields), {}))
        found = f"has the columns {columns}" if columns else "has no columns"
        raise DataRejected(
            CommandCode.UNKNOWN_FORM,
            f"{source} {found}, which is not a supported layout. Supported are: {KNOWN}",
            "source",
        )
    (first, *others), _ = votes.most_common(1)[0]
    if others:
        names = ", ".join(layout.name for layout in (first, *others))
        raise DataRejected(
            CommandCode.AMBIGUOUS_FORM,
            f"{source} fits several layouts ({names}). Keep only the columns of one layout",
            "source",
        )
    return first


def _normalised(record: SourceRecord, layout: Layout) -> Row:
    if record.fields is None:
        raise BadRow(record.fault)
    others = [other for other in matching_layouts(record.fields) if other is not layout]
    if others:
        names = " and ".join(other.name for other in others)
        raise BadRow(f"has the columns of {names}, but most rows have those of {layout.name}")
    missing = sorted(column for column in layout.required if record.fields.get(column) is None)
    if missing:
        raise BadRow(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return layout.convert(record.fields)


def _unused(fields: dict[str, Any], layout: Layout) -> set[str]:
    used = layout.required | layout.optional
    keys = SHAREGPT_KEYS if layout.name == "sharegpt" else ("role", "content")
    inner = {f"{column}[].{key}" for column in used for key in extra_keys(fields.get(column), keys)}
    return inner | {column for column, value in fields.items() if value is not None and column not in used}


def _listed(faults: list[str], total: int) -> str:
    more = f"\n... and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return f"{len(faults)} of {total} rows are bad:\n" + "\n".join(faults[:LISTED]) + more


def whole_text(row: Row) -> str:
    """The content of all messages, column by column."""
    return "\n".join(message["content"] for column in row.values() for message in column)


def prompt_text(row: Row) -> str:
    """The content of the user's messages, which is compared to find rows that ask the same question."""
    messages = row["prompt"] if "prompt" in row else row["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def answers(row: Row) -> Iterator[str]:
    """The content of the assistant's messages; both answers of a preference."""
    for column, messages in row.items():
        for message in messages:
            if column != "prompt" and message["role"] == "assistant":
                yield message["content"]


def changed(row: Row, change: Callable[[str], str]) -> Row:
    """The row with every text changed."""
    return {
        column: [{"role": message["role"], "content": change(message["content"])} for message in messages]
        for column, messages in row.items()
    }


def normalized(text: str) -> str:
    """`text` in NFKC, case folded, with single spaces, for comparing."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
