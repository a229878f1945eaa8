"""Adapter objects, as the server gives them, for people to read."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

Json = dict[str, Any]


def adapter_list(adapters: Sequence[Json]) -> Table:
    """One line a version, in the order given."""
    table = Table("adapter", "rank", "size", "aliases", "registered", "source", box=None, pad_edge=False)
    for adapter in adapters:
        table.add_row(
            escape(adapter["id"]),
            str(adapter["rank"]),
            decimal(adapter["bytes"]),
            escape(", ".join(adapter["aliases"])),
            _when(adapter["created_at"]),
            escape(adapter["source"]),
        )
    return table


def adapter_facts(adapter: Json) -> Table:
    """One line a fact, the warnings last."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for field in ("id", "aliases", "rank", "parameters", "bytes", "created_at", "source", "base", "digest"):
        table.add_row(field, escape(_shown(field, adapter[field])))
    for field, value in adapter["coverage"].items():
        table.add_row(field, escape(_shown(field, value)))
    for field, value in _flat("", adapter.get("lineage", {})):
        table.add_row(f"[dim]{escape(field)}[/]", escape(str(value)))
    for warning in adapter["warnings"]:
        table.add_row("[yellow]warning[/]", escape(warning))
    return table


def _flat(at: str, value: object) -> Iterator[tuple[str, object]]:
    """A lineage's leaves under dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{at}.{key}" if at else str(key), inner)
    elif at:
        yield at, round(value, 6) if isinstance(value, float) else value


def _shown(field: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and field == "created_at":
        return _when(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _when(seconds: float) -> str:
    """In the reader's own time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
