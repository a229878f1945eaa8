"""Read a supported source into one of TRL's forms.

A source with bad rows is refused, with their files and lines, or read without them if the user asks for that.

A file has one layout (`layouts.py`), the one that most of its rows fit. Rows that do not fit it are bad.
Columns that the layout does not use are left out of the data set and counted in `Rows.left_out`. The texts of
a normalised row, for comparing and masking, are here too.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import BadRow, DataRejected
from lora_compose.training.data.labels import refuse_bad_answers
from lora_compose.training.data.layouts import (
    COLUMN_NAMES,
    COLUMNS,
    KNOWN,
    LABEL,
    WEIGHED_LAYOUTS,
    Form,
    Layout,
    has_own_rows,
    matching_layouts,
)
from lora_compose.training.data.messages import Message, Row, columns, extra_keys, said, uses_tools
from lora_compose.training.data.records import SourceRecord
from lora_compose.training.data.sources import read_records
from lora_compose.training.data.tools import TOOL_COLUMNS

LISTED: Final = 10
"""At most this many bad rows are listed in the message."""
DROP_HINT: Final = "\nCorrect them, or leave them out with --bad-rows drop"


BadRows = Literal["stop", "drop"]
"""What to do with rows that cannot be used: refuse the source, or leave them out and report them."""


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read. `encoding` is None to detect it."""

    bad_rows: BadRows = "stop"
    encoding: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a row comes from: `file:line`, and the columns of its record that the layout does not use."""

    place: str
    columns: Mapping[str, Any]


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
    dropped: tuple[str, ...] = ()
    """The rows that were left out, as `file:line: reason`."""
    notes: tuple[str, ...] = ()
    """What was detected or repaired, one sentence each."""
    origins: tuple[Origin, ...] = ()
    """The origin of each row that was read from a source."""

    @property
    def uses_tools(self) -> bool:
        """Whether some rows offer tools or have calls of them."""
        return has_tools(self.dataset)

    def refuse_tools(self, use: str) -> None:
        """Raises DataRejected("wrong_form") if rows use tools; `use` says what they cannot be used for."""
        if self.uses_tools:
            message = f"{self.source} has rows with tools. They cannot be {use}"
            raise DataRejected(CommandCode.WRONG_FORM, message, "source")

    @property
    def remarks(self) -> list[str]:
        """All that a user should know about how the source was read, one sentence each."""
        remarks = list(self.notes)
        if self.dropped:
            total = len(self.dropped) + len(self.dataset)
            remarks.append(_listed(self.dropped, total, f"of {self.source} were left out"))
        if self.left_out:
            columns = ", ".join(f"{name} ({count})" for name, count in self.left_out.items())
            remarks.append(f"columns of {self.source} that were left out, with the number of rows: {columns}")
        return remarks


def read_rows(source: str, options: ReadOptions = ReadOptions()) -> Rows:
    """The rows of a file, a directory, a pattern, a saved data set or a hub id (see `read_records`).

    If a data set has several splits, name one: `DIR#train`. Raises DataRejected: `bad_row` lists up to ten
    rows as `file:line: reason`. For Parquet files and data sets, the line is the row, counted from 1.
    """
    notes: list[str] = []
    records = known_records(source, options, notes.append)
    layout = layout_of(source, records)
    if layout.form != "preference":
        refuse_bad_answers(source, records)
    return rows_of(source, records, layout, options, notes)


def known_records(source: str, options: ReadOptions, on_note: Callable[[str], None]) -> list[SourceRecord]:
    """The records of a source, with known names of columns in lower case. Raises DataRejected("no_rows")."""
    records = [_with_known_names(record) for record in read_records(source, options.encoding, on_note)]
    if not records:
        raise DataRejected(CommandCode.NO_ROWS, f"{source} has no rows", "source")
    return records


def rows_of(
    source: str, records: Sequence[SourceRecord], layout: Layout, options: ReadOptions, notes: Sequence[str]
) -> Rows:
    """The records as normalised rows of one layout. Raises DataRejected("bad_row")."""
    found = _normalised_rows(records, layout)
    if found.faults and (options.bad_rows == "stop" or not found.rows):
        listed = _listed(found.faults, len(records), "are bad")
        raise DataRejected(CommandCode.BAD_ROW, listed + DROP_HINT, "source")
    repaired = [f"{count} {repair}" for repair, count in found.repairs.items()]
    rows = as_rows(source, layout.form, found.rows, dict(sorted(found.left_out.items())))
    return replace(
        rows,
        dropped=tuple(found.faults),
        notes=(*notes, *repaired),
        origins=tuple(found.origins),
    )


@dataclass
class _Normalised:
    """The rows of the records of a source, and what was found on the way."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    left_out: "Counter[str]" = field(default_factory=Counter)
    repairs: "Counter[str]" = field(default_factory=Counter)
    origins: list[Origin] = field(default_factory=list)


def _normalised_rows(records: Sequence[SourceRecord], layout: Layout) -> _Normalised:
    found = _Normalised()
    for record in records:
        try:
            rows = _normalised(record, layout, found.repairs)
            unused = _unused(record.fields or {}, layout)
            found.left_out.update(unused)
            others = {name: value for name, value in (record.fields or {}).items() if name in unused}
            found.rows += rows
            found.origins += [Origin(record.place, others)] * len(rows)
        except BadRow as fault:
            found.faults.append(f"{record.place}: {fault}")
    return found


def _with_known_names(record: SourceRecord) -> SourceRecord:
    """The record with a column such as `Prompt` renamed to the known `prompt`, if that is not there too."""
    fields = record.fields
    if fields is None:
        return record
    renamed = {
        name: known
        for name in fields
        if isinstance(name, str)
        and (known := name.strip().casefold()) in COLUMN_NAMES
        and known not in fields
    }
    if not renamed:
        return record
    return replace(record, fields={renamed.get(name, name): value for name, value in fields.items()})


def as_rows(source: str, form: Form, rows: Sequence[Row], left_out: dict[str, int] | None = None) -> Rows:
    """Normalised rows as a data set with its digest. An empty data set still has its columns."""
    if any(row.get(TOOLS) for row in rows):
        rows = [{**row, TOOLS: row.get(TOOLS)} for row in rows]
    return Rows(source, form, dataset_of(form, rows), digest_of(rows), left_out or {})


TOOLS: Final = "tools"


def dataset_of(form: Form, rows: Sequence[Row]) -> Any:
    """A `datasets.Dataset` of normalised rows. Messages with calls of tools are stored as JSON."""
    from datasets import Dataset, Features, Json, List, Value

    offers = any(TOOLS in row for row in rows)
    calls = offers or any(uses_tools(turns) for row in rows for turns in columns(row).values())
    message = Json() if calls else {"role": Value("string"), "content": Value("string")}
    kinds: dict[str, Any] = {
        name: Value("bool") if name == LABEL else List(message) for name in COLUMNS[form]
    }
    if offers:
        kinds[TOOLS] = Value("string")
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in kinds}, Features(kinds))


def has_tools(dataset: Any) -> bool:
    """Whether some rows offer tools or have calls of them."""
    from datasets import Json

    return any(isinstance(getattr(kind, "feature", None), Json) for kind in dataset.features.values())


def concatenated(form: Form, datasets: Sequence[Any]) -> Any:
    """One data set of several of one form, of which some may have tools."""
    from datasets import concatenate_datasets

    if all(dataset.features == datasets[0].features for dataset in datasets):
        return concatenate_datasets(list(datasets))
    return dataset_of(form, [row for dataset in datasets for row in dataset])


def digest_of(rows: Iterable[Row]) -> str:
    """sha256 of the rows as lines of JSON with sorted keys and no spaces."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def layout_of(source: str, records: Sequence[SourceRecord]) -> Layout:
    """The layout that most rows fit. If two are equally common, the one that occurs first."""
    votes: Counter[tuple[Layout, ...]] = Counter(
        matching_layouts(record.fields) for record in records if record.fields
    )
    votes.pop((), None)
    if not votes:
        faults = [f"{record.place}: {record.fault}" for record in records if record.fault]
        if faults:
            raise DataRejected(CommandCode.BAD_ROW, _listed(faults, len(records), "are bad"), "source")
        columns = ", ".join(next((record.fields for record in records if record.fields), {}))
        found = f"has the columns {columns}" if columns else "has no columns"
        raise DataRejected(
            CommandCode.UNKNOWN_FORM,
            f"{source} {found}, which is not a supported layout. Rename the columns. Supported are: {KNOWN}",
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
    by_answers = WEIGHED_LAYOUTS.get(first.name)
    if by_answers is None:
        return first
    return by_answers if any(has_own_rows(r.fields or {}, first.name) for r in records) else first


def _normalised(record: SourceRecord, layout: Layout, repairs: "Counter[str]") -> list[Row]:
    if record.fields is None:
        raise BadRow(record.fault)
    others = [other for other in matching_layouts(record.fields) if not other.required <= layout.required]
    if others:
        names = " and ".join(other.name for other in others)
        raise BadRow(f"has the columns of {names}, but most rows have those of {layout.name}")
    missing = sorted(column for column in layout.required if record.fields.get(column) is None)
    if missing:
        raise BadRow(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    found: list[str] = []
    rows = layout.convert(record.fields, found.append)
    repairs.update(found)
    return rows


def _unused(fields: dict[str, Any], layout: Layout) -> set[str]:
    used = layout.required | layout.optional
    of_messages = used - set(TOOL_COLUMNS)
    inner = {f"{column}[].{key}" for column in of_messages for key in extra_keys(fields.get(column))}
    return inner | {column for column, value in fields.items() if value is not None and column not in used}


def _listed(faults: Sequence[str], total: int, what: str) -> str:
    more = f"\n... and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return f"{len(faults)} of {total} rows {what}:\n" + "\n".join(faults[:LISTED]) + more


def whole_text(row: Row) -> str:
    """The content of all messages, column by column."""
    return "\n".join(said(message) for column in columns(row).values() for message in column)


def conversation_of(row: Row) -> list[Message]:
    """The whole conversation of a row; of a preference, that of the chosen answer."""
    columns = (
        ("messages",) if "messages" in row else ("prompt", "completion" if "completion" in row else "chosen")
    )
    return [message for column in columns for message in row[column]]


def spoken_text(row: Row) -> str:
    """What all messages but those of system say, column by column."""
    return "\n".join(said(m) for column in columns(row).values() for m in column if m["role"] != "system")


def system_text(row: Row) -> str:
    """The content of the system message, or an empty text."""
    return next((m["content"] for turns in columns(row).values() for m in turns if m["role"] == "system"), "")


def group_of(row: Row) -> str:
    """Rows of different groups are never copies: the system message, and the label of an unpaired row."""
    return f"{row[LABEL]}\n{system_text(row)}" if LABEL in row else system_text(row)


def prompt_text(row: Row) -> str:
    """What users and tools say, which is compared to find rows that ask the same question."""
    messages = row["prompt"] if "prompt" in row else row["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] in ("user", "tool"))


def answers(row: Row) -> Iterator[str]:
    """What the assistant says; both answers of a preference."""
    for column, messages in columns(row).items():
        for message in messages:
            if column != "prompt" and message["role"] == "assistant":
                yield said(message)


def normalized(text: str) -> str:
    """`text` in NFKC, case folded, with single spaces, for comparing."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
