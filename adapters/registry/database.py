"""The registry's tables. Only portable column types: which database it is, is a setting.

Times are seconds since 1970 (UTC), since SQLite has no time zones. Names sort and compare by byte.

The registry's database: one writer at a time, many readers, and faults turned into StorageUnavailable.

By default SQLite in the data directory; any SQLAlchemy URL takes its place. SQLite's own settings are here.
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
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

from lora_compose.adapters.errors import Code, CommandCode, Forbidden, StorageUnavailable
from lora_compose.adapters.registry.schema import SCHEMA, Schema
from lora_compose.adapters.registry.store import Content


class Table(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, float: Double}  # noqa: RUF012


class IdentityRow(Table):
    """One row: which data directory these rows describe."""

    __tablename__ = "identity"
    id: Mapped[str] = mapped_column(primary_key=True)


class AdapterRow(Table):
    """A name that was registered once. It outlives its versions, for their numbers are never given again."""

    __tablename__ = "adapters"
    name: Mapped[str] = mapped_column(primary_key=True)
    last_number: Mapped[int]


class StoredContent:
    """The columns of a row that stands for two files in the store."""

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


class AliasRow(Table):
    """`name@alias` points at `name@number`, and goes when that version goes."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


class CompositionRow(Table):
    """A saved composition, as its canonical text with the references as they were written."""

    __tablename__ = "compositions"
    name: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    created_at: Mapped[float]


class DerivedRow(StoredContent, Table):
    """A merge, cached under what it is made of."""

    __tablename__ = "derived"
    key: Mapped[str] = mapped_column(primary_key=True)
    report: Mapped[dict[str, Any]]


class DerivedMemberRow(Table):
    """One of the contents a merge was made from."""

    __tablename__ = "derived_members"
    key: Mapped[str] = mapped_column(ForeignKey("derived.key", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)


logger = logging.getLogger(__name__)


def sqlite_url(data_dir: Path) -> URL:
    return URL.create("sqlite", database=str(data_dir / "registry.db"))


class Database:
    """Sessions over one engine. `readonly` refuses every write."""

    def __init__(self, url: str | URL, readonly: bool = False, schema: Schema = SCHEMA) -> None:
        self._readonly = readonly
        self._schema = schema
        self._writer = threading.Lock()
        # What a session reads is one state, not a mixture of before and after somebody's write.
        self._engine = create_engine(url, isolation_level="SERIALIZABLE")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        # SQLite can wait for another writer only at the start of a transaction.
        self._writing_engine = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    def migrate(self) -> None:
        """Make the tables, or bring older ones up to date. Raises Conflict("schema_too_new")."""
        with storage_faults():
            self._schema.migrate(self._writing_engine)

    def require_schema(self) -> None:
        """Check, without a write, that this code can read the tables.

        Raises NotFound("no_registry"), Conflict schema_too_new or schema_too_old."""
        with storage_faults(), self._engine.connect() as connection:
            self._schema.require(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with storage_faults(), Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction, alone among this process's threads; rolled back if the body raises."""
        if self._readonly:
            raise Forbidden(CommandCode.READ_ONLY, "The registry was opened for reading only.")
        with self._writer, storage_faults(), Session(self._writing_engine) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def storage_faults() -> Iterator[None]:
    """A fault of disk or database becomes StorageUnavailable("storage_unavailable"); the log says which."""
    try:
        yield
    except (OSError, DBAPIError, PoolTimeout) as fault:
        logger.error("storage fault: %s", fault)
        raise StorageUnavailable(Code.STORAGE_UNAVAILABLE, "The adapter store cannot be used now.") from fault


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # Python's driver would begin a transaction at the first write only; SQLAlchemy's events do it, see below.
    connection.isolation_level = None
    # Readers go on while one writes; a commit is on the disk when it returns.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
