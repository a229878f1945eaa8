"""A database is migrated to the schema of this code, or refused. Release 0.1.0 wrote no revision."""

import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from lora_compose.adapters.errors import Conflict, NotFound
from lora_compose.adapters.registry.database import Database, Table, sqlite_url
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.schema import SCHEMA, Schema, revision
from lora_compose.server.tenants.key_store import KeyStore

MADE_BY_0_1_0 = Path(__file__).parent / "data" / "registry-0.1.0"
"""Made by the last code that wrote no revision. It has three versions, an alias, a composition, a merge and
a key."""

NEXT_SCRIPT = """
import sqlalchemy as sa
from alembic import op
revision = "0003"
down_revision = "0002"
def upgrade():
    op.add_column("versions", sa.Column("note", sa.String(), nullable=False, server_default="none"))
"""

OPEN_KEYS = """
import sys
from pathlib import Path
from lora_compose.server.tenants.key_store import KeyStore
sys.stdin.read()
with KeyStore(Path(sys.argv[1])) as keys:
    print(len(keys.by_digest()))
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the directory that 0.1.0 made."""
    return Path(shutil.copytree(MADE_BY_0_1_0, tmp_path / "old"))


@pytest.fixture
def next_schema(tmp_path: Path) -> Schema:
    """The schema of a later release, which adds a column."""
    scripts = Path(shutil.copytree(SCHEMA.scripts, tmp_path / "100% later"))
    (scripts / "versions" / "revision_0003.py").write_text(NEXT_SCRIPT)
    return Schema("0003", scripts)


@contextmanager
def connected(data_dir: Path) -> Iterator[Connection]:
    engine = create_engine(sqlite_url(data_dir))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def migrate(data_dir: Path, schema: Schema) -> None:
    with closing(Database(sqlite_url(data_dir), schema=schema)) as database:
        database.migrate()


def revision_of(data_dir: Path) -> str | None:
    with connected(data_dir) as connection:
        return revision(connection)


def rows(data_dir: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data_dir / "registry.db")) as connection:
        return connection.execute(statement).fetchall()


def check_contents(registry: Registry) -> None:
    registry.check_integrity()
    assert [version.id for version in registry.versions("sql")] == ["sql@1", "sql@2"]
    assert registry.names() == ["polite", "sql"]
    assert registry.aliases("sql") == {"prod": 1}
    assert registry.composition("mine").canonical == "polite:0.5+sql@prod"
    for name, number in (("sql", "1"), ("sql", "2"), ("polite", "1")):
        registry.verify(registry.resolve(name, number))


def test_a_directory_made_by_0_1_0_opens_with_all_that_was_in_it(old: Path) -> None:
    merge = rows(old, "SELECT key FROM derived")[0][0]
    for _ in range(2):
        with Registry(old) as registry:
            check_contents(registry)
            assert registry.merges.find(str(merge)) is not None
            assert {base.name for base in registry.bases.counts()} == {"unknown"}
        with KeyStore(old) as keys:
            assert [(key.name, key.role) for key in keys.by_digest().values()] == [("ops", "admin")]
        assert rows(old, "SELECT version_num FROM alembic_version") == [(SCHEMA.head,)]


def test_a_directory_made_by_0_1_0_is_not_changed_by_reading(old: Path) -> None:
    with pytest.raises(Conflict) as refused:
        Registry.open_readonly(old)
    assert refused.value.code == "schema_too_old"
    assert rows(old, "SELECT name FROM sqlite_master WHERE name = 'alembic_version'") == []


def test_tables_that_0_1_0_had_not_made_yet_are_made(old: Path) -> None:
    rows(old, "DROP TABLE api_keys")
    with KeyStore(old) as keys:
        assert keys.by_digest() == {}
    with Registry(old) as registry:
        check_contents(registry)


@pytest.mark.parametrize("made_by", ["0.1.0", "this code"])
def test_the_scripts_lead_to_the_tables_that_the_code_declares(
    old: Path, tmp_path: Path, made_by: str
) -> None:
    data_dir = old if made_by == "0.1.0" else tmp_path
    Registry(data_dir).close()
    with connected(data_dir) as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        assert set(inspect(connection).get_table_names()) == {*Table.metadata.tables, "alembic_version"}


def test_the_head_is_the_newest_script() -> None:
    assert ScriptDirectory(SCHEMA.scripts).get_heads() == [SCHEMA.head]


def test_an_older_database_is_migrated_and_keeps_its_rows(old: Path, next_schema: Schema) -> None:
    for data_dir in (old, Path(shutil.copytree(MADE_BY_0_1_0, old.parent / "stamped"))):
        if data_dir != old:
            Registry(data_dir).close()
        migrate(data_dir, next_schema)
        assert revision_of(data_dir) == "0003"
        assert rows(data_dir, "SELECT note FROM versions") == [("none",)] * 3
        assert rows(data_dir, "SELECT alias FROM aliases") == [("prod",)]


@pytest.mark.parametrize("opener", [Registry, Registry.open_readonly, KeyStore])
def test_a_newer_database_is_refused_with_both_revisions_and_left_alone(
    old: Path, next_schema: Schema, opener: type
) -> None:
    migrate(old, next_schema)
    with pytest.raises(Conflict) as refused:
        opener(old)
    assert refused.value.code == "schema_too_new"
    assert "'0003'" in refused.value.message
    assert "'0002'" in refused.value.message
    assert "\n" not in refused.value.message
    assert revision_of(old) == "0003"


def test_an_older_database_cannot_be_opened_for_reading_only(old: Path, next_schema: Schema) -> None:
    database = Database(sqlite_url(old), readonly=True, schema=next_schema)
    with closing(database), pytest.raises(Conflict) as refused:
        database.require_schema()
    assert refused.value.code == "schema_too_old"
    assert "lora-compose serve" in refused.value.message


def test_a_database_without_tables_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()
    with pytest.raises(NotFound) as refused:
        Registry.open_readonly(tmp_path)
    assert refused.value.code == "no_registry"


def test_a_migration_that_fails_leaves_the_database_unchanged(old: Path, next_schema: Schema) -> None:
    script = next_schema.scripts / "versions" / "revision_0003.py"
    script.write_text(NEXT_SCRIPT + "    raise RuntimeError('stop')\n")
    with pytest.raises(RuntimeError, match="stop"):
        migrate(old, next_schema)
    with Registry(old) as registry:
        check_contents(registry)
    assert revision_of(old) == SCHEMA.head


@pytest.mark.parametrize("made", [True, False])
def test_processes_that_open_one_directory_at_once_all_succeed(old: Path, tmp_path: Path, made: bool) -> None:
    data_dir = old if made else tmp_path / "new"
    command = [sys.executable, "-W", "error", "-c", OPEN_KEYS, str(data_dir)]
    openers = [
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(6)
    ]
    for opener in openers:
        assert opener.stdin
        opener.stdin.close()
    for opener in openers:
        with opener:
            assert opener.stdout
            assert opener.stdout.read() == f"{int(made)}\n"
        assert opener.returncode == 0


def test_a_registry_that_is_up_to_date_opens_without_alembic(old: Path) -> None:
    Registry(old).close()
    program = f"""
import sys
from pathlib import Path
from lora_compose.adapters.registry.registry import Registry
Registry(Path({str(old)!r})).close()
Registry.open_readonly(Path({str(old)!r})).close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_migration_is_one_line_of_the_log(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Registry(old).close()
    assert [record.getMessage() for record in caplog.records] == [
        "registry schema is at revision 0002, before: 0001"
    ]
