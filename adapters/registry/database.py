"""The registry's tables, and its database: one writer at a time, many readers.

The default database is SQLite in the data directory. A SQLAlchemy URL can name another one, so all column
types are portable. Settings that only SQLite needs are here. Database errors become StorageUnavailable.

Times are seconds since 1970 (UTC), because SQLite has no time zones. Names sort and compare by byte.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import ConnectionPoolEntry

from lora_compose.adapters.errors import Code, CommandCode, Forbidden, StorageUnavailable
from lora_compose.adapters.registry.schema import SCHEMA, Schema
from lora_compose.adapters.registry.store import DATABASE, Content


class Table(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, float: Double}  # noqa: RUF012


class IdentityRow(Table):
    """A single row: the id of the data directory that belongs to this database."""

    __tablename__ = "identity"
    id: Mapped[str] = mapped_column(primary_key=True)


class AdapterRow(Table):
    """A name that was registered once. The row outlives its versions, so that no number is used again."""

    __tablename__ = "adapters"
    name: Mapped[str] = mapped_column(primary_key=True)
    last_number: Mapped[int]


class StoredContent:
    """The columns of a row that describes two files in the store."""

    digest: Mapped[str] = mapped_column(index=True)
    config_bytes: Mapped[int] = mapped_column(BigInteger)
    weights_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]

    @property
    def content(self) -> Content:
        return Content(self.digest, self.config_bytes, self.weights_bytes)


class VersionRow(StoredContent, Table):
    __tablename__ = "versions"
    name: Mapped[str] = mapped_column(ForeignKey("adapters.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int]
    parameters: Mapped[int] = mapped_column(BigInteger)
    peak: Mapped[float]
    coverage: Mapped[dict[str, Any]]
    warnings: Mapped[list[str]]
    source: Mapped[str]
    lineage: Mapped[dict[str, Any]]
    ttl_seconds: Mapped[int | None] = mapped_column(BigInteger)
    expires_at: Mapped[float | None] = mapped_column(index=True)
    bases: Mapped[list["VersionBaseRow"]] = relationship(
        lazy="selectin",
        order_by="VersionBaseRow.fingerprint",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class VersionBaseRow(Table):
    """`name@number` was admitted for the base with this fingerprint. `base_name` is the base's name then."""

    __tablename__ = "version_bases"
    __table_args__ = (
        ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(primary_key=True, index=True)
    base_name: Mapped[str]


class ServedBaseRow(Table):
    """A single row: the base that a server of this registry served last."""

    __tablename__ = "served_base"
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    base_name: Mapped[str]


class RetiredRow(Table):
    """A version that was removed because it expired or because newer versions superseded it."""

    __tablename__ = "retired_versions"
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    reason: Mapped[str]
    retired_at: Mapped[float]


class PinRow(Table):
    """A pinned version. The row is deleted with the version."""

    __tablename__ = "pins"
    __table_args__ = (
        ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class FusedRow(Table):
    """At most one row: the canonical text of the composition that an operator fused."""

    __tablename__ = "fused"
    model: Mapped[str] = mapped_column(primary_key=True)


class AliasRow(Table):
    """`name@alias` points at `name@number`. The row is deleted with that version."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


class CompositionRow(Table):
    """A saved composition: its canonical text, with versions and aliases as the user wrote them."""

    __tablename__ = "compositions"
    name: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    created_at: Mapped[float]


class MergeRow(StoredContent, Table):
    """A cached merge. Its key is computed from its members, weights and options."""

    __tablename__ = "derived"
    key: Mapped[str] = mapped_column(primary_key=True)
    report: Mapped[dict[str, Any]]
    used_at: Mapped[float | None]
    """The last use that was recorded. None: never used since it was built."""


class MergeMemberRow(Table):
    """A content that a cached merge was made from."""

    __tablename__ = "derived_members"
    key: Mapped[str] = mapped_column(ForeignKey("derived.key", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)


logger = logging.getLogger(__name__)


def sqlite_url(data_dir: Path) -> URL:
    return URL.create("sqlite", database=str(data_dir / DATABASE))


class Database:
    """Makes sessions on one database. If `readonly` is set, every write is refused."""

    def __init__(self, url: str | URL, readonly: bool = False, schema: Schema = SCHEMA) -> None:
        self._readonly = readonly
        self._schema = schema
        self._writer = threading.Lock()
        # A session reads one state of the database, and never a mixture from before and after a write.
        self._engine = create_engine(url, isolation_level="SERIALIZABLE")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        # SQLite can wait for another writer only when a transaction starts.
        self._writing_engine = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    def migrate(self) -> None:
        """Create the tables, or migrate older ones. Raises Conflict("schema_too_new")."""
        with storage_faults():
            self._schema.migrate(self._writing_engine)

    def require_schema(self) -> None:
        """Check that this code can read the tables. It writes nothing.

        Raises NotFound("no_registry"), Conflict schema_too_new or schema_too_old."""
        with storage_faults(), self._engine.connect() as connection:
            self._schema.require(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with storage_faults(), Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction. Other threads of this process wait. It is rolled back if the body raises."""
        if self._readonly:
            raise Forbidden(CommandCode.READ_ONLY, "The registry is open for reading only.")
        with self._writer, storage_faults(), Session(self._writing_engine) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def storage_faults() -> Iterator[None]:
    """Log an error of the disk or database, and raise StorageUnavailable("storage_unavailable")."""
    try:
        yield
    except (OSError, DBAPIError, PoolTimeout) as fault:
        logger.error("storage error: %s", fault)
        raise StorageUnavailable(
            Code.STORAGE_UNAVAILABLE, "The registry's disk or database cannot be used now."
        ) from fault


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # Python's driver would begin a transaction only at the first write. `_begin_sqlite` begins it instead.
    connection.isolation_level = None
    # Readers can read during a write. A commit is on the disk when it returns.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
