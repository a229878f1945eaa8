"""Read any supported source into one of TRL's forms. A bad row stops the reading, with its file and line.

A file has one layout (`forms.py`): the one most of its rows fit. Every other row is bad, and is listed.
Columns that the layout does not use are left out of the data set and counted in `Rows.left_out`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from training.data.files import Located, located
from training.data.forms import COLUMNS, KNOWN, SHAREGPT_KEYS, Form, Layout, fitting
from training.data.messages import Row, extra_keys
from training.data.rejected import BadRow, DataRejected

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
        raise DataRejected("no_rows", f"{source} holds no rows", "source")
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
        raise DataRejected("bad_row", _listed(faults, len(found)), "source")
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
            raise DataRejected("bad_row", _listed(faults, len(found)), "source")
        columns = ", ".join(next((each.record for each in found if each.record), {})) or "none"
        raise DataRejected("unknown_form", f"{source}: columns {columns}; known are {KNOWN}", "source")
    (first, *others), _ = votes.most_common(1)[0]
    if others:
        names = ", ".join(layout.name for layout in (first, *others))
        raise DataRejected(
            "ambiguous_form", f"{source} fits several layouts ({names}): keep the columns of one", "source"
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
