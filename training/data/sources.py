"""Reads records from JSONL, JSON, CSV, TSV and Parquet files, compressed or not, directories and patterns of
files, saved data sets and the hub, each with its place in the source.

A record that cannot be parsed is yielded with a fault, so that the caller can list all faults of a file.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.decoding import COMPRESSED, OnNote, bare_suffix, read_bytes
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.json_records import read_json, read_json_lines
from lora_compose.training.data.records import SourceRecord, record_of
from lora_compose.training.data.tables import read_table

SAVED: Final = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` writes: for a data set, and for one with splits."""
SPLITS: Final = re.compile(r"(train|test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)
"""The beginning of a file name that names a split, as in `train-00000-of-00002.parquet`."""
METADATA: Final = ("dataset_info.json", "dataset_infos.json", "state.json")
PATTERN: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class OpenFile:
    """A file to read. `split` names the list of rows in a JSON document; `encoding` is None to detect it."""

    path: Path
    split: str
    encoding: str | None
    on_note: OnNote


def read_records(
    source: str, encoding: str | None = None, on_note: OnNote = lambda _: None
) -> Iterator[SourceRecord]:
    """The records of a file, a directory, a pattern or a hub id (`ORG/NAME[:CONFIG][#SPLIT]`), in order.

    `on_note` gets what a user should know about how the files were read.
    """
    if Path(source).is_file():
        return _file(OpenFile(Path(source), "", encoding, on_note))
    name, _, split = source.partition("#")
    path = Path(name)
    if path.is_file():
        return _file(OpenFile(path, split, encoding, on_note))
    if PATTERN.search(name):
        return _files(source, _matching(name), encoding, on_note)
    if path.is_dir() and not any((path / file).is_file() for file in SAVED):
        return _directory(source, path, split, encoding, on_note)
    return _dataset(name, split)


def _file(file: OpenFile) -> Iterator[SourceRecord]:
    reader = READERS.get(bare_suffix(file.path))
    if reader is None:
        raise DataRejected(CommandCode.UNKNOWN_FORMAT, _unknown_format(file.path), "source")
    try:
        yield from reader(file)
    except (OSError, EOFError) as error:
        raise DataRejected(
            CommandCode.BROKEN_FILE, f"{file.path} cannot be read: {error}", "source"
        ) from None


def _unknown_format(path: Path) -> str:
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        return f"{path} is a spreadsheet. Save it as CSV, UTF-8: soffice --headless --convert-to csv {path}"
    names = ", ".join(READERS)
    return (
        f"The name of {path} must end with one of {names}; then {', '.join(COMPRESSED)} if it is compressed"
    )


def _matching(pattern: str) -> list[Path]:
    anchor = Path(pattern).anchor
    try:
        return list(Path(anchor).glob(pattern.removeprefix(anchor)))
    except ValueError as error:
        raise DataRejected(
            CommandCode.SOURCE_NOT_FOUND, f"{pattern} is not a valid pattern: {error}", "source"
        ) from None


def _holds_rows(path: Path) -> bool:
    return bare_suffix(path) in READERS and path.name not in METADATA


def _files(
    source: str, paths: list[Path], encoding: str | None, on_note: OnNote, split: str = ""
) -> Iterator[SourceRecord]:
    """The records of several files, in the order of their names."""
    readable = sorted(path for path in paths if path.is_file() and _holds_rows(path))
    if not readable:
        raise DataRejected(
            CommandCode.SOURCE_NOT_FOUND,
            f"{source} has no files whose names end with one of {', '.join(READERS)}",
            "source",
        )
    on_note(f"{source} is {len(readable)} files, from {readable[0].name} to {readable[-1].name}")
    return chain.from_iterable(_file(OpenFile(path, split, encoding, on_note)) for path in readable)


def _directory(
    source: str, path: Path, split: str, encoding: str | None, on_note: OnNote
) -> Iterator[SourceRecord]:
    """The files of a directory and its subdirectories. If their names name several splits, one must be
    chosen.
    """
    paths = [
        found
        for found in path.rglob("*")
        if _holds_rows(found) and not any(part.startswith(".") for part in found.relative_to(path).parts)
    ]
    splits: dict[str, list[Path]] = {}
    for found in paths:
        named = SPLITS.match(found.name)
        splits.setdefault(named[1].lower() if named else "", []).append(found)
    if split or len(splits) > 1:
        if split not in splits:
            names = ", ".join(sorted(name for name in splits if name)) or "no splits"
            first = next((name for name in sorted(splits) if name), "train")
            raise DataRejected(
                CommandCode.WHICH_SPLIT,
                f"{path} has files of {names}. Name one split, for example {path}#{first}, or name the files",
                "source",
            )
        paths = splits[split]
    return _files(source, paths, encoding, on_note)


def _parquet(opened: OpenFile) -> Iterator[SourceRecord]:
    """The place is the number of the row, counted from 1."""
    path = opened.path
    from pyarrow import ArrowInvalid, BufferReader  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        is_compressed = path.suffix.lower() in COMPRESSED
        file = ParquetFile(BufferReader(read_bytes(path)) if is_compressed else path)
    except ArrowInvalid as error:
        raise DataRejected(CommandCode.BROKEN_FILE, f"{path}: {error}", "source") from None
    yield from _of_batches(path, file.iter_batches())


def _of_batches(path: Path, batches: Iterable[Any]) -> Iterator[SourceRecord]:
    number = 0
    for batch in batches:
        for record in batch.to_pylist():
            number += 1
            yield record_of(f"{path}:{number}", record)


def _arrow(opened: OpenFile) -> Iterator[SourceRecord]:
    """Arrow's file or stream format. Feather is the same as the file format."""
    from pyarrow import ArrowInvalid, BufferReader, ipc

    data = read_bytes(opened.path)
    try:
        file = ipc.open_file(BufferReader(data))
        batches = [file.get_batch(index) for index in range(file.num_record_batches)]
    except ArrowInvalid:
        try:
            batches = list(ipc.open_stream(BufferReader(data)))
        except ArrowInvalid as error:
            raise DataRejected(CommandCode.BROKEN_FILE, f"{opened.path}: {error}", "source") from None
    yield from _of_batches(opened.path, batches)


def _json_lines(file: OpenFile) -> Iterator[SourceRecord]:
    return read_json_lines(file.path, file.split, file.encoding, file.on_note)


def _json(file: OpenFile) -> Iterator[SourceRecord]:
    return read_json(file.path, file.split, file.encoding, file.on_note)


def _table(file: OpenFile) -> Iterator[SourceRecord]:
    return read_table(file.path, file.encoding, file.on_note)


READERS: Final[dict[str, Callable[[OpenFile], Iterator[SourceRecord]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".tab": _table,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
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
        yield record_of(f"{name}:{number}", record)


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
