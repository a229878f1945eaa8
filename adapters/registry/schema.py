"""The revision of the registry's tables: reads it, migrates an older database, and refuses a newer one.

Each step is an Alembic script in `migrations/versions`. Alembic stores a database's revision in its table
`alembic_version`. Alembic is imported only if there is something to migrate, because the import takes 0.1 s.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from lora_compose.adapters.errors import CommandCode, Conflict, NotFound

logger = logging.getLogger(__name__)

VERSION_TABLE = "alembic_version"
BASELINE = "0001"
"""The schema of release 0.1.0, which did not write a revision."""
BASELINE_TABLE = "identity"
_POSTGRESQL_LOCK = 0x6C6F7261
"""The advisory lock that is held during a migration: "lora"."""


@dataclass(frozen=True)
class Schema:
    """The schema that a version of this code works with."""

    head: str
    """The revision of the newest script."""
    scripts: Path
    """Alembic's script location: `env.py` and `versions/`."""

    def require(self, connection: Connection) -> None:
        """Check that the tables can be read without a migration.

        Raises NotFound("no_registry"), Conflict schema_too_new or schema_too_old."""
        found = revision(connection)
        if found is None:
            raise NotFound(CommandCode.NO_REGISTRY, "There is no registry in this database.")
        if found == self.head:
            return
        if found not in self._known():
            raise self._too_new(found)
        raise Conflict(
            CommandCode.SCHEMA_TOO_OLD,
            f"The registry's database has schema revision {found!r}, and this version of lora-compose needs "
            f"{self.head!r}. To migrate it, open it once for writing, for example with `lora-compose serve`.",
        )

    def migrate(self, engine: Engine) -> None:
        """Create the tables in an empty database, or migrate older ones to `head`, in one transaction.

        Several processes may do this at once. Raises Conflict("schema_too_new")."""
        with engine.connect() as connection:
            if _stamped(connection) == self.head:
                return
        with _alone(engine) as connection:
            before = revision(connection)
            if _stamped(connection) == self.head:
                return
            if before is not None and before not in self._known():
                raise self._too_new(before)
            self._upgrade(connection)
        logger.info("registry schema is at revision %s, before: %s", self.head, before or "empty database")

    def _upgrade(self, connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(self.scripts).replace("%", "%%"))
        command.upgrade(config, self.head)

    def _known(self) -> set[str]:
        """The revisions of all scripts."""
        from alembic.script import ScriptDirectory

        return {script.revision for script in ScriptDirectory(self.scripts).walk_revisions()}

    def _too_new(self, found: str) -> Conflict:
        return Conflict(
            CommandCode.SCHEMA_TOO_NEW,
            f"The registry's database has schema revision {found!r}, and this version of lora-compose knows "
            f"revisions up to {self.head!r}. Install the version of lora-compose that wrote it, or restore a "
            "backup of the data directory from before the migration.",
        )


SCHEMA = Schema(head="0002", scripts=Path(__file__).parent / "migrations")


def revision(connection: Connection) -> str | None:
    """The revision that the database records, or BASELINE if its tables are from 0.1.0.

    None if the database has no tables of a registry."""
    written = _stamped(connection)
    if written is None and inspect(connection).has_table(BASELINE_TABLE):
        return BASELINE
    return written


def _stamped(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    written: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return written


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction during which no other process can migrate this database."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # The statements after the lock must see what was committed while this process waited for it.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))
            yield connection
