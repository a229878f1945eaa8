"""Cached merges: the content for each key, and the contents it was made from.

A merge is removed with any of its members. It can be built again, so a damaged one is just removed, and the
least recently used ones are removed when all of them are larger than a bound.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from lora_compose.adapters.registry.database import (
    Database,
    MergeMemberRow,
    MergeRow,
    VersionRow,
    storage_faults,
)
from lora_compose.adapters.registry.store import Store

KEYS_AT_ONCE = 500
"""SQLite bounds the parameters of a statement."""


class MergeCache:
    """The cached merges of one registry. Any thread may call any method."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._used: dict[str, float] = {}
        """Uses that are not in the database yet. `trim` writes them, because a write takes a disk flush."""

    def find(self, key: str) -> Path | None:
        """The directory of the merge cached with `key`. None if it does not exist or a file is incomplete."""
        with self._database.reading() as session:
            row = session.get(MergeRow, key)
            content = row.content if row else None
        with storage_faults():
            if content is None or not self._store.holds(content):
                return None
        self._used[key] = time.time()
        return self._store.path(content.digest)

    def keys(self, among: Collection[str]) -> set[str]:
        """Those of the keys `among` under which a merge is cached. It does not look at the files."""
        found: set[str] = set()
        keys = list(among)
        with self._database.reading() as session:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                found.update(session.scalars(select(MergeRow.key).where(MergeRow.key.in_(some))))
        return found

    def report(self, key: str) -> dict[str, Any] | None:
        """The report of the merge cached with `key`."""
        with self._database.reading() as session:
            row = session.get(MergeRow, key)
            return row.report if row else None

    def add(self, key: str, staged: Path, report: Mapping[str, Any], members: Iterable[str]) -> Path:
        """Move the two files of a merge out of `staged` and cache them until one of `members` is removed.

        `members` are the digests of its members."""
        with ExitStack() as stack:
            with storage_faults():
                sealed = stack.enter_context(self._store.sealed(staged))
            content = sealed.content
            with self._database.writing() as session:
                session.execute(delete(MergeRow).filter_by(key=key))
                session.add(
                    MergeRow(
                        key=key,
                        digest=content.digest,
                        config_bytes=content.config_bytes,
                        weights_bytes=content.weights_bytes,
                        created_at=time.time(),
                        report=dict(report),
                    )
                )
                session.flush()
                session.add_all(MergeMemberRow(key=key, digest=digest) for digest in set(members))
                self._store.install(sealed)
            return self._store.path(content.digest)

    def size(self) -> tuple[int, int]:
        """The number of cached merges, and the bytes of their files."""
        with self._database.reading() as session:
            return _size(session)

    def trim(self, max_bytes: int, in_use: Callable[[str, str], bool]) -> tuple[int, int]:
        """Remove the least recently used merges until all of them fit into `max_bytes`.

        `in_use(key, digest)` keeps a merge. It is asked within the transaction. Returns the number of removed
        merges, and the bytes of the others. The files are deleted too, unless a version or another merge has
        the same files."""
        used, self._used = self._used, {}
        with self._database.writing() as session:
            for key, when in used.items():
                if (row := session.get(MergeRow, key)) is not None:
                    row.used_at = when
            session.flush()
            removed = _least_used(session, max_bytes, in_use)
            for row in removed:
                session.execute(delete(MergeRow).filter_by(key=row.key))
            _, size = _size(session)
        digests = {row.digest for row in removed}
        if digests:
            self._delete_files(digests)
        return len(removed), size

    def _delete_files(self, digests: set[str]) -> None:
        """A second transaction deletes the files, as in `Registry.sweep`."""
        with self._database.writing() as session:
            for digest in (digests - referenced_digests(session)) & self._store.digests():
                self._store.remove(digest)


def _size(session: Session) -> tuple[int, int]:
    total = func.coalesce(func.sum(MergeRow.config_bytes + MergeRow.weights_bytes), 0)
    count, size = session.execute(select(func.count(), total)).one()
    return count, int(size)


def _least_used(session: Session, max_bytes: int, in_use: Callable[[str, str], bool]) -> list[MergeRow]:
    """The merges to remove, the least recently used first."""
    _, size = _size(session)
    removed = []
    last_use = func.coalesce(MergeRow.used_at, MergeRow.created_at)
    for row in session.scalars(select(MergeRow).order_by(last_use)) if size > max_bytes else ():
        if size <= max_bytes:
            break
        if not in_use(row.key, row.digest):
            removed.append(row)
            size -= row.config_bytes + row.weights_bytes
    return removed


def delete_without_members(session: Session, keep: Collection[str]) -> None:
    """Delete each merge with a member that is neither the content of a version nor a digest in `keep`."""
    wanted = {*session.scalars(select(VersionRow.digest)), *keep}
    rows = session.execute(select(MergeMemberRow.key, MergeMemberRow.digest))
    for key in {key for key, digest in rows if digest not in wanted}:
        session.execute(delete(MergeRow).filter_by(key=key))


def referenced_digests(session: Session) -> set[str]:
    """The digests of the contents of all versions and merges."""
    return {*session.scalars(select(VersionRow.digest)), *session.scalars(select(MergeRow.digest))}
