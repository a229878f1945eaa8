"""The state of a registry on disk, as plain values that can be compared."""

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import content_of

GENERATED_COLUMNS = {"created_at", "id"}
"""Columns that differ each time the same thing is done."""

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"

State = dict[str, Any]


def reopened_state(home: Path) -> State:
    """Open the registry as after a crash, check its integrity, and return its state."""
    with Registry(home) as registry:
        registry.check_integrity()
        for name in registry.names():
            for version in registry.versions(name):
                registry.verify(version)
        assert not list(registry.staging_dir.iterdir()), "temporary files were left"
    state: State = {"rows": _rows(home / "registry.db"), "files": _files(home / "store")}
    named = {row["digest"] for table in ("versions", "derived") for row in state["rows"][table]}
    on_disk = {path.name for path in (home / "store").iterdir()}
    assert on_disk == named, "files and rows do not match"
    for digest in on_disk:
        assert content_of(home / "store" / digest).digest == digest, f"{digest} holds other bytes"
    return state


def _rows(database: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row["name"] for row in connection.execute(TABLES)]
        return {table: _table(connection, table) for table in sorted(tables)}


def _table(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    rows = [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]
    kept = [{key: row[key] for key in row if key not in GENERATED_COLUMNS} for row in rows]
    return sorted(kept, key=repr)


def _files(store: Path) -> dict[str, tuple[int, str]]:
    """Mode and sha256 by path. The sha256 of a folder is that of empty content."""
    return {
        str(path.relative_to(store)): (
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest(),
        )
        for path in sorted(store.rglob("*"))
    }


def delete_home(home: Path) -> None:
    """Delete a data directory with its read-only folders."""
    for parent, _, _ in os.walk(home):
        Path(parent).chmod(0o700)
    shutil.rmtree(home)
