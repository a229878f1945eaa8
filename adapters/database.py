"""The registry's database: one writer at a time, many readers, and faults turned into StorageUnavailable.

By default SQLite in the data directory; any SQLAlchemy URL takes its place. SQLite's own settings are here.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from adapters.errors import Forbidden, StorageUnavailable
from adapters.schema import SCHEMA, Schema

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
            raise Forbidden("read_only", "The registry was opened for reading only.")
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
        raise StorageUnavailable("storage_unavailable", "The adapter store cannot be used now.") from fault


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
