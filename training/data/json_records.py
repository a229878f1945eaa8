"""Reads JSON lines and JSON documents.

The content decides, not the name: a list of objects, an object that holds the list, columns as lists, and
objects one after another are all read, under either suffix.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.decoding import (
    OnNote,
    decoded,
    marked_encoding,
    open_bytes,
    read_bytes,
)
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.layouts import COLUMN_NAMES, matching_layouts
from lora_compose.training.data.records import SourceRecord, record_of

UTF8: Final = (None, "utf-8-sig")
MARK: Final = b"\xef\xbb\xbf"
BLANK: Final = " \t\r\n"
LONG_NUMBER: Final = "it has a number of too many digits"


def read_json_lines(path: Path, split: str, encoding: str | None, on_note: OnNote) -> Iterator[SourceRecord]:
    """One record for each line. Blank lines are skipped. A file that is one document is read as that."""
    with open_bytes(path) as file:
        first_two = list(islice((line for line in file if line.strip()), 2))
    if encoding is None and not split and _are_records(first_two):
        return _streamed(path)
    return read_json(path, split, encoding, on_note)


def read_json(path: Path, split: str, encoding: str | None, on_note: OnNote) -> Iterator[SourceRecord]:
    """The records of a JSON document, or of JSON lines."""
    return _document(decoded(read_bytes(path), path, encoding, on_note), path, split)


def _are_records(first_two: list[bytes]) -> bool:
    """Whether the first two lines of a file are two records, and not the beginning of a longer document."""
    start = b"".join(first_two)
    bare = start.removeprefix(MARK).lstrip()
    is_utf8 = marked_encoding(start) in UTF8
    return is_utf8 and len(first_two) == 2 and not bare.startswith(b"[") and first_two[0].strip() != b"{"


def _streamed(path: Path) -> Iterator[SourceRecord]:
    with open_bytes(path) as lines:
        for number, line in enumerate(lines, start=1):
            bare = line.removeprefix(MARK)  # files that were joined have marks inside
            if bare.strip():
                yield _line(f"{path}:{number}", bare)


def _line(place: str, line: bytes | str) -> SourceRecord:
    try:
        return record_of(place, json.loads(line if isinstance(line, str) else line.decode()))
    except json.JSONDecodeError as error:
        return SourceRecord(place, None, f"invalid JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        return SourceRecord(place, None, f"byte {error.start + 1} of the line is not UTF-8")
    except ValueError:
        return SourceRecord(place, None, f"invalid JSON: {LONG_NUMBER}")
    except RecursionError:
        return SourceRecord(place, None, "invalid JSON: it is nested too deeply")


def _document(text: str, path: Path, split: str) -> Iterator[SourceRecord]:
    at = _skip(text, 0)
    first, _, rest = text[at:].partition("\n")
    if first.startswith("["):
        yield from _elements(text, at, path)
    elif rest.strip() and _is_json(first):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _line(f"{path}:{number}", line)
    else:
        yield from _objects(text, at, path, split)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _elements(text: str, at: int, path: Path) -> Iterator[SourceRecord]:
    """The elements of the list that begins at `at`, each with its line."""
    decoder, line, counted, at = json.JSONDecoder(), 1, 0, _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield _rest(path, line, error)
            return
        yield record_of(f"{path}:{line}", value)
        at = _skip(text, end)
        if text[at : at + 1] not in {",", "]"}:
            yield SourceRecord(
                f"{path}:{line}", None, "invalid JSON: no comma after this object; the rest was not read"
            )
            return
        at = _skip(text, at + 1) if text[at] == "," else at


def _objects(text: str, at: int, path: Path, split: str) -> Iterator[SourceRecord]:
    """Objects one after another. A single one may hold the rows."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    is_first = True
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield _rest(path, line, error)
            return
        at = _skip(text, end)
        if is_first and at == len(text) and isinstance(value, dict):
            yield from _held(value, path, split)
            return
        is_first = False
        yield record_of(f"{path}:{line}", value)


def _rest(path: Path, line: int, error: Exception) -> SourceRecord:
    if isinstance(error, json.JSONDecodeError):
        return SourceRecord(
            f"{path}:{error.lineno}", None, f"invalid JSON: {error.msg}; the rest was not read"
        )
    why = "it is nested too deeply" if isinstance(error, RecursionError) else LONG_NUMBER
    return SourceRecord(f"{path}:{line}", None, f"invalid JSON: {why}; the rest was not read")


def _held(document: dict[str, Any], path: Path, split: str) -> Iterable[SourceRecord]:
    """The rows that a single object holds: itself, the list under one of its keys, or its columns."""
    if not split and matching_layouts(document) and not _columns(document):
        return [record_of(f"{path}:1", document)]
    if columns := _columns(document):
        return _from_columns(columns, path)
    lists = {key: value for key, value in document.items() if _is_list_of_objects(value)}
    if split or len(lists) > 1:
        if split not in lists:
            names = ", ".join(lists) or "no lists of rows"
            raise DataRejected(
                CommandCode.WHICH_SPLIT,
                f"{path} has {names}. Name one list, for example {path}#{next(iter(lists), 'train')}",
                "source",
            )
        lists = {split: lists[split]}
    if not lists:
        return [record_of(f"{path}:1", document)]
    (key, rows), *_ = lists.items()
    return (record_of(f"{path}:{key}[{index}]", _unwrapped(row)) for index, row in enumerate(rows))


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _unwrapped(row: dict[str, Any]) -> Any:
    """The row of an entry as the Hub's viewer writes them: `{"row_idx": 0, "row": {…}}`."""
    return row["row"] if "row_idx" in row and isinstance(row.get("row"), dict) else row


def _columns(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of a document as pandas writes it, or nothing.

    Each value is a list of texts, or an object from the number of a row to its text.
    """
    columns = {
        key: list(value.values()) if isinstance(value, dict) else value
        for key, value in document.items()
        if isinstance(value, list | dict)
    }
    is_table = len(columns) == len(document) and len({len(value) for value in columns.values()}) == 1
    names = [key for key in columns if key.strip().casefold() in COLUMN_NAMES]
    is_text = all(isinstance(cell, str) for name in names for cell in columns[name])
    return columns if is_table and len(names) > 1 and is_text else {}


def _from_columns(columns: Mapping[str, list[Any]], path: Path) -> Iterator[SourceRecord]:
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        yield SourceRecord(f"{path}:[{index}]", dict(zip(columns, cells, strict=True)))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANK:
        at += 1
    return at
