"""Rows for KTO: a prompt, an answer, and a label that says whether the answer is good.

Any layout of `layouts.py` with a column of labels is read. In a conversation, the label is about the last
answer. A pair of a chosen and a rejected answer becomes one good and one bad row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.labels import LabelRule, label_column, label_reader, marking_column
from lora_compose.training.data.layouts import Convert, Layout
from lora_compose.training.data.messages import OnRepair, Row
from lora_compose.training.data.records import SourceRecord
from lora_compose.training.data.rows import ReadOptions, Rows, known_records, layout_of, rows_of

PAIRS: Final = "pairs became a good and a bad row"
FOUND: Final = LabelRule()
"""The rule of a user who says nothing: the column is found by its name."""


def read_unpaired(
    source: str,
    options: ReadOptions,
    rule: LabelRule,
    *,
    unlabelled_are_good: bool = False,
) -> Rows:
    """The rows of a source with the columns `prompt`, `completion` and `label`, a bool.

    Raises as `read_rows` does, and DataRejected: "wrong_form" if no column has labels, "unclear_labels" if
    its values do not say good or bad.
    """
    notes: list[str] = []
    records = known_records(source, options, notes.append)
    layout = layout_of(source, records)
    if layout.form == "preference":
        return rows_of(source, records, _with(layout, _pair_rows(layout.convert)), options, notes)
    column = label_column(records, rule)
    if column is not None:
        return _labelled_rows(source, records, layout, _Labels(column, rule), options, notes)
    if not unlabelled_are_good or rule.column is not None:
        raise _without_labels(source, rule)
    notes.append(f"{source} has no column with labels: all its answers are taken as good")
    unlabelled = _with(layout, _labelled(layout.convert, lambda _: True))
    return rows_of(source, records, unlabelled, options, notes)


def read_as_it_is(source: str, options: ReadOptions, rule: LabelRule = FOUND) -> Rows:
    """The rows of a source in their own form, which is `unpaired` if a column marks answers as good or bad.

    Without a rule, that is a column whose values all say good or bad (`marking_column`). Raises as
    `read_unpaired` does.
    """
    notes: list[str] = []
    records = known_records(source, options, notes.append)
    layout = layout_of(source, records)
    column = marking_column(records) if rule == FOUND else label_column(records, rule)
    if layout.form == "preference" or (column is None and rule == FOUND):
        return rows_of(source, records, layout, options, notes)
    if column is None:
        raise _without_labels(source, rule)
    return _labelled_rows(source, records, layout, _Labels(column, rule), options, notes)


@dataclass(frozen=True)
class _Labels:
    """The column with the labels, in lower case, and how they are read."""

    column: str
    rule: LabelRule


def _labelled_rows(
    source: str,
    records: list[SourceRecord],
    layout: Layout,
    labels: _Labels,
    options: ReadOptions,
    notes: list[str],
) -> Rows:
    column = labels.column
    is_good = label_reader(source, column, records, labels.rule)
    records = [_with_column(record, column) for record in records]
    labelled = _with(
        replace(layout, required=layout.required | {column}),
        _labelled(layout.convert, lambda record: is_good(record[column])),
    )
    return rows_of(source, records, labelled, options, notes)


def _with(layout: Layout, convert: Convert) -> Layout:
    return replace(layout, form="unpaired", convert=convert)


def _labelled(convert: Convert, is_good: Callable[[Any], bool]) -> Convert:
    def labelled(record: Any, on_repair: OnRepair) -> list[Row]:
        good = is_good(record)
        return [_row(*_last_answer(row), good) for row in convert(record, on_repair)]

    return labelled


def _last_answer(row: Row) -> tuple[Any, Any]:
    """The prompt and the answer that the label is about."""
    if "messages" in row:
        return row["messages"][:-1], row["messages"][-1:]
    return row["prompt"], row["completion"]


def _pair_rows(convert: Convert) -> Convert:
    def unpaired(record: Any, on_repair: OnRepair) -> list[Row]:
        rows = convert(record, on_repair)
        on_repair(PAIRS)
        return [
            _row(row["prompt"], row[column], column == "chosen")
            for row in rows
            for column in ("chosen", "rejected")
        ]

    return unpaired


def _row(prompt: Any, completion: Any, good: bool) -> Row:
    """A row in TRL's form. Its label is a bool, the only value of a row that is not a list of messages."""
    return cast(Row, {"prompt": prompt, "completion": completion, "label": good})


def _with_column(record: SourceRecord, column: str) -> SourceRecord:
    """The record with the column of labels under its name in lower case."""
    if record.fields is None:
        return record
    fields = {
        column if str(name).strip().casefold() == column else name: value
        for name, value in record.fields.items()
    }
    return replace(record, fields=fields)


def _without_labels(source: str, rule: LabelRule) -> DataRejected:
    if rule.column is not None:
        message = f"{source} has no column {rule.column}"
    else:
        message = (
            f"{source} has no column that says whether an answer is good or bad, for example label: true. "
            "Name it with --label-column. Rows of good answers only are trained with `train sft`"
        )
    return DataRejected(CommandCode.WRONG_FORM, message, "label_column")
