"""The work of a registry for one request does not grow with the number of registered adapters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.adapters.registry.database import VersionRow
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.versions import Terms
from tests.adapters.registries import Facts, register, write_files


@contextmanager
def counted(target: object, name: str) -> Iterator[list[object]]:
    """The arguments of SQLAlchemy's event `name` of `target` during the body."""
    events: list[object] = []

    def record(*arguments: object) -> None:
        events.append(arguments)

    event.listen(target, name, record)
    try:
        yield events
    finally:
        event.remove(target, name, record)


@pytest.mark.parametrize("ask", [Registry.catalogue, Registry.newest, Registry.count, Registry.compositions])
def test_a_listing_asks_the_database_as_often_for_thirty_adapters_as_for_one(
    tmp_path: Path, ask: Callable[[Registry], object]
) -> None:
    with Registry(tmp_path) as registry:
        counts = []
        for upto in (1, 30):
            for number in range(upto):
                register(registry, f"a{number}", f"content {number}")
            with counted(Engine, "before_cursor_execute") as statements:
                ask(registry)
            counts.append(len(statements))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("ref", [None, "1", "prod"])
def test_a_lookup_reads_one_version_however_many_there_are(tmp_path: Path, ref: str | None) -> None:
    with Registry(tmp_path) as registry:
        for number in range(12):
            register(registry, "sql", f"content {number}")
        registry.set_alias("sql", "prod", "7")
        with counted(VersionRow, "load") as rows:
            registry.resolve("sql", ref)
    assert len(rows) == 1


def test_the_catalogue_has_every_version_with_its_aliases_the_newest_of_a_name_first(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        for name, text in (("b", "one"), ("a", "two"), ("b", "three")):
            register(registry, name, text)
        registry.set_alias("b", "prod", "1")
        registry.set_alias("b", "best", "1")
        listed = [(version.id, aliases) for version, aliases in registry.catalogue()]
        assert listed == [("a@1", []), ("b@2", []), ("b@1", ["best", "prod"])]
        assert [version.id for version in registry.newest()] == ["a@1", "b@2"]
        assert registry.count() == 2


def test_an_alias_that_cannot_be_leaves_nothing_registered(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        with registry.staging() as staged, pytest.raises(InvalidRequest):
            registry.register("sql", write_files(staged, "one"), Facts(), "test", {}, Terms("1"))
        assert registry.names() == []
        with registry.staging() as staged:
            registry.register("sql", write_files(staged, "one"), Facts(), "test", {}, Terms("prod"))
        assert registry.aliases("sql") == {"prod": 1}
