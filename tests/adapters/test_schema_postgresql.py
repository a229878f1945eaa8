"""The schema tests on PostgreSQL. They need a PostgreSQL server program and its Python driver."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from lora_compose.adapters.errors import Conflict
from lora_compose.adapters.registry.database import Database, Table
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.schema import SCHEMA, Schema, revision
from lora_compose.server.tenants.key_store import KeyRow

pytest.importorskip("psycopg")
PG_CTL = next(iter([*Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), shutil.which("pg_ctl")]), None)
# PostgreSQL refuses to run as root.
AS_USER = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that only this test uses, on a socket."""
    if PG_CTL is None:
        pytest.skip("no PostgreSQL on this machine")
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        if AS_USER:
            shutil.chown(directory, "postgres")
        options = f"-k {directory} -c listen_addresses='' -c fsync=off"
        pg_ctl = [*AS_USER, str(PG_CTL), "-D", str(data)]
        subprocess.run([*pg_ctl, "init", "-o", "-A trust -U postgres"], check=True, capture_output=True)
        start = [*pg_ctl, "-o", options, "-l", f"{directory}/log", "-w", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
        yield f"postgresql+psycopg://postgres@/postgres?host={directory}"
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=True, capture_output=True)


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """An empty database."""
    yield server
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def test_the_scripts_lead_to_the_tables_that_the_code_declares(url: str, tmp_path: Path) -> None:
    assert KeyRow.__tablename__ in Table.metadata.tables
    Registry(tmp_path, url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        assert revision(connection) == SCHEMA.head
    engine.dispose()


def test_tables_made_by_0_1_0_are_recognised_and_keep_their_rows(url: str, tmp_path: Path) -> None:
    engine = create_engine(url)
    Schema("0001", SCHEMA.scripts).migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version, api_keys"))
        connection.execute(text("INSERT INTO compositions VALUES ('both', 'roll@1+upper@1', 1.0)"))
    with Registry(tmp_path, url) as registry:
        assert {name: saved.canonical for name, saved in registry.compositions().items()} == {
            "both": "roll@1+upper@1"
        }
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == SCHEMA.head
    engine.dispose()


def test_a_newer_database_is_refused(url: str, tmp_path: Path) -> None:
    Registry(tmp_path, url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Conflict) as refused:
        Registry(tmp_path, url)
    assert refused.value.code == "schema_too_new"


def test_those_who_open_an_empty_database_at_once_all_succeed(url: str) -> None:
    def open_once(_: int) -> None:
        with closing(Database(url)) as database:
            database.migrate()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(open_once, range(6)))
    with closing(Database(url)) as database:
        database.require_schema()
