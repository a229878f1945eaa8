"""One record of a source, before its layout is known."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceRecord:
    """The fields of one record and its place.

    If it cannot be parsed, `fields` is None and `fault` says why.
    """

    place: str
    fields: dict[str, Any] | None
    fault: str = ""


def record_of(place: str, value: object) -> SourceRecord:
    """The record of a parsed JSON value. NaN, which pandas writes for a missing cell, counts as missing."""
    if isinstance(value, dict):
        return SourceRecord(place, {name: None if held != held else held for name, held in value.items()})
    return SourceRecord(
        place, None, f"the row is of type {type(value).__name__}, not an object with named fields"
    )
