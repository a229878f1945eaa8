"""Records with the place each came from, out of JSONL, JSON, CSV, Parquet, saved data sets and the hub.

What cannot be parsed is yielded as a fault with its place, so that a reader can list all faults of a file.
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
"""What `save_to_disk` leaves in a directory: of one data set, or of one a split."""


@dataclass(frozen=True)
class Located:
    """One record and its place, or why there is none (`fault`)."""

    place: str
    record: dict[str, Any] | None
    fault: str = ""


def located(source: str) -> Iterator[Located]:
    """The records of a file, a directory or a hub id (`ORG/NAME[:CONFIG][#SPLIT]`), in order."""
    name, _, split = source.partition("#")
    path = Path(name)
    if path.is_file():
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise DataRejected(
                CommandCode.UNKNOWN_FORMAT, f"{path}: the name ends in none of {', '.join(READERS)}", "source"
            )
        return reader(path)
    return _dataset(name, split)


def _object(place: str, value: object) -> Located:
    if isinstance(value, dict):
        return Located(place, value)
    return Located(place, None, f"a {type(value).__name__}, not an object with named fields")


def _json_lines(path: Path) -> Iterator[Located]:
    """Blank lines are no rows."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            bare = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if bare.strip():
                yield _json_line(f"{path}:{number}", bare)


def _json_line(place: str, line: bytes) -> Located:
    try:
        return _object(place, json.loads(line.decode()))
    except json.JSONDecodeError as error:
        return Located(place, None, f"broken JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        return Located(place, None, f"not UTF-8: byte {error.start + 1} of the line")


def _json(path: Path) -> Iterator[Located]:
    """A list of objects; a file that begins with an object is read line by line."""
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
            yield Located(f"{path}:{error.lineno}", None, f"broken JSON: {error.msg}; nothing read after it")
            return
        yield _object(f"{path}:{line}", value)
        at = _skip(text, end)
        if text[at : at + 1] not in {",", "]"}:
            yield Located(f"{path}:{line}", None, "broken JSON: no comma after this; nothing read after it")
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


def _csv(path: Path) -> Iterator[Located]:
    """The first line names the columns; a row's place is the line it begins on. Empty cells are missing."""
    table = csv.DictReader(StringIO(_decoded(path), newline=""), restkey=None, strict=True)
    begins = 2
    try:
        for row in table:
            place, begins = f"{path}:{begins}", table.line_num + 1
            if None in row:
                yield Located(place, None, f"{len(row[None])} cells more than columns")
            else:
                yield Located(place, {name: cell or None for name, cell in row.items()})
    except csv.Error as error:
        yield Located(f"{path}:{begins}", None, f"broken CSV: {error}; nothing read after it")


def _parquet(path: Path) -> Iterator[Located]:
    """The place is the row, counted from 1."""
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
            yield Located(f"{path}:{number}", record)


READERS: Final[dict[str, Callable[[Path], Iterator[Located]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _dataset(name: str, split: str) -> Iterator[Located]:
    """A directory of `save_to_disk`, or what `datasets.load_dataset` knows under `name`."""
    import datasets

    path = Path(name)
    if any((path / file).is_file() for file in SAVED):
        loaded = datasets.load_from_disk(name)
    else:
        loaded = _from_hub(name)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _one_split(name, loaded, split)
    for number, record in enumerate(loaded, start=1):
        yield Located(f"{name}:{number}", record)


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
            f"{name} is no file, no saved data set, and no hub id that loads: {why}",
            "source",
        ) from None


def _one_split(name: str, splits: Any, split: str) -> Any:
    if not split and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        names = ", ".join(splits)
        raise DataRejected(
            CommandCode.WHICH_SPLIT,
            f"{name} has the splits {names}: write {name}#{next(iter(splits))}",
            "source",
        )
    return splits[split]
