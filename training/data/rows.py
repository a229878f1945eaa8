"""Read any supported source into one of TRL's forms. A bad row stops the reading, with its file and line.

A file has one layout (`forms.py`): the one most of its rows fit. Every other row is bad, and is listed.
Columns that the layout does not use are left out of the data set and counted in `Rows.left_out`.

The texts of a normalised row: what is compared, and what is changed when something is masked.
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
    fitting,
)
from lora_compose.training.data.sources import Located, located

LISTED: Final = 10
"""How many bad rows a refusal names."""


@dataclass(frozen=True)
class Rows:
    """Normalised rows: lists of `{"role", "content"}` under the columns of their form."""

    source: str
    form: Form
    dataset: Any
    """A `datasets.Dataset`."""
    digest: str
    """sha256 over the canonical JSON of the rows in order."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Columns (and keys of messages, as `messages[].key`) not taken over: how many rows had them."""


def read_rows(source: str) -> Rows:
    """The rows of a `.jsonl`, `.json`, `.csv` or `.parquet` file, a saved data set or a hub id.

    Of several splits, name one: `DIR#train`. Raises DataRejected: `bad_row` lists up to ten rows as
    `file:line: why` (of Parquet and data sets, the row counted from 1).
    """
    found = list(located(source))
    if not found:
        raise DataRejected(CommandCode.NO_ROWS, f"{source} holds no rows", "source")
    layout = _layout_of(source, found)
    rows: list[Row] = []
    faults: list[str] = []
    left_out: Counter[str] = Counter()
    for each in found:
        try:
            rows.append(_normalised(each, layout))
            left_out.update(_unused(each.record or {}, layout))
        except BadRow as fault:
            faults.append(f"{each.place}: {fault}")
    if faults:
        raise DataRejected(CommandCode.BAD_ROW, _listed(faults, len(found)), "source")
    return as_rows(source, layout.form, rows, dict(sorted(left_out.items())))


def as_rows(source: str, form: Form, rows: Sequence[Row], left_out: dict[str, int] | None = None) -> Rows:
    """Rows that are normalised already, as a data set with its digest. An empty list keeps its columns."""
    from datasets import Dataset, Features, List, Value

    message = {"role": Value("string"), "content": Value("string")}
    features = Features({column: List(message) for column in COLUMNS[form]})
    columns = {column: [row[column] for row in rows] for column in COLUMNS[form]}
    dataset = Dataset.from_dict(columns, features=features)
    return Rows(source, form, dataset, digest_of(rows), left_out or {})


def digest_of(rows: Iterable[Row]) -> str:
    """sha256 over each row as JSON with sorted keys and no spaces, one a line."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _layout_of(source: str, found: Sequence[Located]) -> Layout:
    """What most rows fit, the first of them on a draw."""
    votes: Counter[tuple[Layout, ...]] = Counter(fitting(each.record) for each in found if each.record)
    votes.pop((), None)
    if not votes:
        faults = [f"{each.place}: {each.fault}" for each in found if each.fault]
        if faults:
            raise DataRejected(CommandCode.BAD_ROW, _listed(faults, len(found)), "source")
        columns = ", ".join(next((each.record for each in found if each.record), {})) or "none"
        raise DataRejected(
            CommandCode.UNKNOWN_FORM, f"{source}: columns {columns}; known are {KNOWN}", "source"
        )
    (first, *others), _ = votes.most_common(1)[0]
    if others:
        names = ", ".join(layout.name for layout in (first, *others))
        raise DataRejected(
            CommandCode.AMBIGUOUS_FORM,
            f"{source} fits several layouts ({names}): keep the columns of one",
            "source",
        )
    return first


def _normalised(each: Located, layout: Layout) -> Row:
    if each.record is None:
        raise BadRow(each.fault)
    others = [other for other in fitting(each.record) if other is not layout]
    if others:
        names = " and ".join(other.name for other in others)
        raise BadRow(f"mixed forms: has the columns of {names}, most rows those of {layout.name}")
    missing = sorted(column for column in layout.required if each.record.get(column) is None)
    if missing:
        raise BadRow(f"{' and '.join(missing)} is missing")
    return layout.convert(each.record)


def _unused(record: dict[str, Any], layout: Layout) -> set[str]:
    used = layout.required | layout.optional
    keys = SHAREGPT_KEYS if layout.name == "sharegpt" else ("role", "content")
    inner = {f"{column}[].{key}" for column in used for key in extra_keys(record.get(column), keys)}
    return inner | {column for column, value in record.items() if value is not None and column not in used}


def _listed(faults: list[str], total: int) -> str:
    more = f"\n... and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return f"{len(faults)} bad of {total} rows\n" + "\n".join(faults[:LISTED]) + more


def whole_text(row: Row) -> str:
    """Everything that is said, column by column."""
    return "\n".join(message["content"] for column in row.values() for message in column)


def asked_text(row: Row) -> str:
    """What a person says: of two rows that ask the same, one must not be trained on to answer the other."""
    messages = row["prompt"] if "prompt" in row else row["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def answers(row: Row) -> Iterator[str]:
    """What is learnt to be said; of preferences both answers."""
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
    """NFKC, case folded, every run of space one: what two copies of a text have in common."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
