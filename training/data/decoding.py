"""Opens compressed files, and decodes the bytes of a file to text.

A byte order mark decides the encoding. Without one, a text is UTF-8 if it can be. Otherwise the encoding is
detected by the library charset-normalizer, which can be wrong: the reader always reports what was detected.
"""

import codecs
import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, cast

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import DataRejected

COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
"""Suffixes of compressed files, and pyarrow's names of their formats."""

MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks. UTF-32 is before UTF-16, because its mark begins with that of UTF-16."""

CODE_PAGES: Final = (
    "cp1252",
    "cp949",
    "cp932",
    "gb18030",
    "big5",
    "cp1251",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "utf_16_le",
    "utf_16_be",
)
"""What spreadsheets write in different countries."""
SAMPLE: Final = 40
"""Characters of the sample of a text whose encoding was detected."""

OnNote = Callable[[str], None]


def bare_suffix(path: Path) -> str:
    """The lower-case suffix of `path` without that of its compression: `.jsonl` for `rows.jsonl.gz`."""
    name = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed as its name says."""
    kind = COMPRESSED.get(path.suffix.lower())
    if kind is None:
        return path.open("rb")
    from pyarrow import input_stream  # type: ignore[import-untyped]

    return cast(BinaryIO, io.BufferedReader(input_stream(str(path), compression=kind)))


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, decompressed."""
    with open_bytes(path) as file:
        return file.read()


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte order mark at the start of a file says, or None."""
    return next((encoding for mark, encoding in MARKS if start.startswith(mark)), None)


def decoded(data: bytes, path: Path, encoding: str | None, on_note: OnNote) -> str:
    """The text of a file.

    `encoding` is the name that the user gave. Raises DataRejected("not_utf8") if the bytes do not fit it, or
    if no single encoding is the most likely one.
    """
    chosen = encoding or marked_encoding(data) or "utf-8"
    try:
        return data.decode(chosen)
    except LookupError:
        raise DataRejected(
            CommandCode.NOT_UTF8, f"There is no encoding {encoding!r}. Use, for example, cp1252", "encoding"
        ) from None
    except UnicodeDecodeError as error:
        if encoding is not None or chosen != "utf-8":
            raise DataRejected(
                CommandCode.NOT_UTF8, f"{path}: byte {error.start + 1} is not {chosen}", "encoding"
            ) from None
        return _detected(data, path, error.start, on_note)


def _detected(data: bytes, path: Path, fault: int, on_note: OnNote) -> str:
    from charset_normalizer import from_bytes

    matches = sorted(from_bytes(data, cp_isolation=list(CODE_PAGES)), key=lambda match: match.chaos)
    likely = [match.encoding for match in matches if match.chaos == matches[0].chaos]
    if len(likely) != 1:
        options = f" It may be {', '.join(likely)}." if likely else ""
        raise DataRejected(
            CommandCode.NOT_UTF8,
            f"{path}: byte {fault + 1} is not UTF-8.{options} Save the file as UTF-8, or name its encoding, "
            "for example --encoding cp1252",
            "source",
        )
    text = data.decode(likely[0])
    on_note(
        f"{path} is not UTF-8. It was read as {likely[0]}, for example {_sample(text)!r}. "
        "If that is wrong, use --encoding"
    )
    return text


def _sample(text: str) -> str:
    """The beginning of the first line that is not ASCII."""
    line = next((line for line in text.splitlines() if not line.isascii()), text)
    return line[:SAMPLE]
