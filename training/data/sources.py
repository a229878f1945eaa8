"""Read records from JSONL, JSON, CSV, Parquet, saved data sets and the hub, each with its place in the
source.

A record that cannot be parsed is yielded with a fault, so that the caller can list all faults of a file.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import DataRejected

SAVED: Final = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` writes: for a data set, and for one with splits."""


@dataclass(frozen=True)
class SourceRecord:
    """The fields of one record and its place.

    If it cannot be parsed, `fields` is None and `fault` says why.
    """

    place: str
    fields: dict[str, Any] | None
    fault: str = ""


def read_records(source: str) -> Iterator[SourceRecord]:
    """The records of a file, a directory or a hub id (`ORG/NAME[:CONFIG][#SPLIT]`), in order."""
    name, _, split = source.partition("#")
    path = Path(name)
    if path.is_file():
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise DataRejected(
                CommandCode.UNKNOWN_FORMAT,
                f"The name of {path} must end with one of {', '.join(READERS)}",
                "source",
            )
        return reader(path)
    return _dataset(name, split)


def _object(place: str, value: object) -> SourceRecord:
    if isinstance(value, dict):
        return SourceRecord(place, value)
    return SourceRecord(
        place, None, f"the row is of type {type(value).__name__}, not an object with named fields"
    )


def _json_lines(path: Path) -> Iterator[SourceRecord]:
    """One record for each line. Blank lines are skipped."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            bare = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if bare.strip():
                yield _json_line(f"{path}:{number}", bare)


def _json_line(place: str, line: bytes) -> SourceRecord:
    try:
        return _object(place, json.loads(line.decode()))
    except json.JSONDecodeError as error:
        return SourceRecord(place, None, f"invalid JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        return SourceRecord(place, None, f"byte {error.start + 1} of the line is not UTF-8")


def _json(path: Path) -> Iterator[SourceRecord]:
    """The objects of a JSON list. A file that first_line with an object is read as JSON lines."""
    text = _decoded(path)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        yield from _json_lines(path)
        return
    decoder, line, counted, at = json.JSONDecoder(), 1, 0, _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            yield SourceRecord(
                f"{path}:{error.lineno}", None, f"invalid JSON: {error.msg}; the rest was not read"
            )
            return
        yield _object(f"{path}:{line}", value)
        at = _skip(text, end)
        if text[at : at + 1] not in {",", "]"}:
            yield SourceRecord(
                f"{path}:{line}", None, "invalid JSON: no comma after this object; the rest was not read"
            )
            return
        at = _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _decoded(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataRejected(
            CommandCode.NOT_UTF8, f"{path}: byte {error.start + 1} is not UTF-8", "source"
        ) from None


def _csv(path: Path) -> Iterator[SourceRecord]:
    """The first line names the columns. A row's place is its first line. Empty cells count as missing."""
    table = csv.DictReader(StringIO(_decoded(path), newline=""), restkey=None, strict=True)
    count, first_line = len(table.fieldnames or ()), 2
    try:
        for row in table:
            place, first_line = f"{path}:{first_line}", table.line_num + 1
            if None in row:
                yield SourceRecord(
                    place, None, f"the row has {count + len(row[None])} cells, but there are {count} columns"
                )
            else:
                yield SourceRecord(place, {name: cell or None for name, cell in row.items()})
    except csv.Error as error:
        yield SourceRecord(f"{path}:{first_line}", None, f"invalid CSV: {error}; the rest was not read")


def _parquet(path: Path) -> Iterator[SourceRecord]:
    """The place is the number of the row, counted from 1."""
    from pyarrow import ArrowInvalid  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        file = ParquetFile(path)
    except ArrowInvalid as error:
        raise DataRejected(CommandCode.BROKEN_FILE, f"{path}: {error}", "source") from None
    number = 0
    for batch in file.iter_batches():
        for record in batch.to_pylist():
            number += 1
            yield SourceRecord(f"{path}:{number}", record)


READERS: Final[dict[str, Callable[[Path], Iterator[SourceRecord]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _dataset(name: str, split: str) -> Iterator[SourceRecord]:
    """A directory of `save_to_disk`, or a data set that `datasets.load_dataset` finds under `name`."""
    import datasets

    path = Path(name)
    if any((path / file).is_file() for file in SAVED):
        loaded = datasets.load_from_disk(name)
    else:
        loaded = _from_hub(name)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _selected_split(name, loaded, split)
    for number, record in enumerate(loaded, start=1):
        yield SourceRecord(f"{name}:{number}", record)


def _from_hub(name: str) -> Any:
    import datasets
    from huggingface_hub.errors import HFValidationError

    identifier, _, config = name.partition(":")
    try:
        return datasets.load_dataset(identifier, config or None)
    except (OSError, ValueError, HFValidationError, datasets.exceptions.DatasetGenerationError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataRejected(
            CommandCode.SOURCE_NOT_FOUND,
            f"{name} is neither a file nor a saved data set, and cannot be loaded from the hub: {why}",
            "source",
        ) from None


def _selected_split(name: str, splits: Any, split: str) -> Any:
    if not split and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        names = ", ".join(splits)
        raise DataRejected(
            CommandCode.WHICH_SPLIT,
            f"{name} has the splits {names}. Name one, for example {name}#{next(iter(splits))}",
            "source",
        )
    return splits[split]
