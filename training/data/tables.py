"""Reads tables as text: CSV and TSV, as spreadsheets and scripts write them.

The separator is the one of SEPARATORS with which the header names most known columns, or else has most
columns. Excel's first line `sep=;` is obeyed.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.decoding import OnNote, decoded, read_bytes
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.layouts import COLUMN_NAMES
from lora_compose.training.data.records import SourceRecord

SEPARATORS: Final = (",", ";", "\t", "|")
LONGEST_CELL: Final = 2**31 - 1
"""Bytes. The library's own limit is 128 KiB."""
EXCEL_SEPARATOR: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


def read_table(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[SourceRecord]:
    """The rows of a CSV or TSV file.

    The first line names the columns. A row's place is its first line. Empty cells count as missing.
    """
    csv.field_size_limit(LONGEST_CELL)
    text = decoded(read_bytes(path), path, encoding, on_note)
    lines_before = 0
    if named := EXCEL_SEPARATOR.match(text):
        text, separator, lines_before = text[named.end() :], named[1], 1
    else:
        blank = text[: len(text) - len(text.lstrip("\r\n"))]
        text, lines_before = text[len(blank) :], len(blank.splitlines())
        separator = _separator(text)
    table = csv.DictReader(StringIO(text, newline=""), restkey=None, strict=True, delimiter=separator)
    first_line = 1 + lines_before
    try:
        _check_header(path, table.fieldnames or ())
        count, first_line = len(table.fieldnames or ()), 2 + lines_before
        for row in table:
            place, first_line = f"{path}:{first_line}", table.line_num + 1 + lines_before
            if None in row:
                yield SourceRecord(
                    place, None, f"the row has {count + len(row[None])} cells, but there are {count} columns"
                )
            else:
                yield SourceRecord(place, {name: cell or None for name, cell in row.items()})
    except csv.Error as error:
        why = f"invalid CSV: {error}; the rest was not read. Check the quotation marks of this row"
        yield SourceRecord(f"{path}:{first_line}", None, why)


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raises DataRejected("bad_row") if a column is named twice. Names that are empty do not count."""
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        message = f"{path} names the column {twice[0]!r} twice. Rename or delete one of them"
        raise DataRejected(CommandCode.BAD_ROW, message, "source")


def _separator(text: str) -> str:
    def columns(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return sum(name.strip().casefold() in COLUMN_NAMES for name in header), len(header)

    return max(SEPARATORS, key=columns)
