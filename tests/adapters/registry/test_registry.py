import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import (
    AdapterRejected,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageUnavailable,
)
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base
from lora_compose.adapters.registry.versions import Terms
from tests.adapters.registries import BASE, Facts, register, weights_of, write_files


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "data", reserved=("tiny-base",)) as registry:
        yield registry


def test_a_version_says_what_admission_and_its_source_said(registry: Registry) -> None:
    version, created = register(registry, "sql", "one")
    assert created
    assert version == registry.resolve("sql") == registry.resolve("sql", "1")
    assert (version.id, version.rank, version.parameters, version.bytes) == ("sql@1", 8, 1024, 5)
    assert (version.coverage, version.warnings) == ({"layers": [0, 1]}, ("trained on another base",))
    assert (version.source, version.bases) == ("test", (BASE,))
    assert datetime.now(UTC) - version.created_at < timedelta(minutes=1)


def test_the_same_bytes_stay_one_version_and_other_bytes_are_the_next(registry: Registry) -> None:
    first, _ = register(registry, "sql", "one")
    assert register(registry, "sql", "one") == (first, False)
    second, created = register(registry, "sql", "two")
    assert (second.number, created) == (2, True)
    assert register(registry, "sql", "one") == (first, False)
    assert registry.resolve("sql") == second
    assert weights_of(registry.resolve("sql", "1")) == "one"


A, B = Base("a", "first"), Base("b", "second")


def test_registering_again_renews_facts_and_keeps_what_lineage_told_before(registry: Registry) -> None:
    with registry.staging() as staged:
        registry.register("sql", write_files(staged, "one"), Facts(), "run", {"run": "r1"}, Terms(base=A))
    with registry.staging() as staged:
        version, _ = registry.register(
            "sql", write_files(staged, "one"), Facts(peak=9.0), "up", {"note": "n"}, Terms(base=B)
        )
    assert (version.lineage, version.bases) == ({"run": "r1", "note": "n"}, (A, B))
    assert version.peak == 9.0


def test_two_names_may_share_their_bytes(registry: Registry) -> None:
    first, _ = register(registry, "sql", "one")
    other, _ = register(registry, "also-sql", "one")
    assert first.directory == other.directory
    registry.remove("sql")
    assert registry.sweep() == set()
    assert weights_of(registry.resolve("also-sql")) == "one"


def test_numbers_are_never_given_twice(registry: Registry, tmp_path: Path) -> None:
    register(registry, "sql", "one")
    register(registry, "sql", "two")
    registry.remove("sql", "2")
    assert register(registry, "sql", "two")[0].number == 3
    registry.remove("sql")
    registry.close()
    with Registry(tmp_path / "data") as again:
        assert again.names() == []
        assert register(again, "sql", "two")[0].number == 4


@pytest.mark.parametrize("name", ["tiny-base", "ties", "stack", "cat", "taken"])
def test_a_reserved_name_cannot_be_registered(registry: Registry, name: str) -> None:
    register(registry, "sql", "one")
    registry.save_composition("taken", parse("sql:0.5"))
    with pytest.raises(Conflict) as refused:
        register(registry, name, "two")
    assert refused.value.code == "name_reserved"
    assert registry.names() == ["sql"]


def test_an_impossible_name_leaves_nothing_behind(registry: Registry) -> None:
    with pytest.raises(InvalidRequest):
        register(registry, "../x", "one")
    assert registry.sweep() == set()
    assert not list(registry.staging_dir.iterdir())


@pytest.mark.parametrize(("name", "ref"), [("nobody", None), ("sql", "9"), ("sql", "prod"), ("SQL", None)])
def test_what_is_not_registered_is_not_found(registry: Registry, name: str, ref: str | None) -> None:
    register(registry, "sql", "one")
    with pytest.raises(NotFound) as refused:
        registry.resolve(name, ref)
    assert refused.value.code == "model_not_found"


def test_listings_are_by_name_and_number(registry: Registry) -> None:
    for name, text in [("b", "1"), ("a", "2"), ("b", "3")]:
        register(registry, name, text)
    assert registry.names() == ["a", "b"]
    assert [version.id for version in registry.versions("b")] == ["b@1", "b@2"]
    assert [version.id for version in registry.newest()] == ["a@1", "b@2"]


def test_removed_bytes_stay_while_they_are_in_use(registry: Registry) -> None:
    version, _ = register(registry, "sql", "one")
    assert registry.remove("sql") == [version]
    assert registry.sweep(keep={version.digest}) == set()
    assert weights_of(version) == "one"
    assert registry.sweep() == {version.digest}
    assert not version.directory.exists()
    with pytest.raises(NotFound):
        registry.remove("sql")


def test_everything_is_there_after_a_restart(registry: Registry, tmp_path: Path) -> None:
    for text in ("one", "two"):
        register(registry, "sql", text)
    registry.set_alias("sql", "prod", "1")
    registry.save_composition("half", parse("sql@prod:0.5"))
    before = registry.versions("sql")
    registry.close()
    with Registry(tmp_path / "data") as again:
        assert again.versions("sql") == before
        assert again.resolve("sql", "prod") == before[0]
        assert again.compositions() == {"half": parse("sql@prod:0.5")}
        again.check_integrity()


def test_one_process_owns_a_data_directory_and_others_may_look(registry: Registry, tmp_path: Path) -> None:
    version, _ = register(registry, "sql", "one")
    with pytest.raises(Conflict) as refused:
        Registry(tmp_path / "data")
    assert refused.value.code == "data_dir_in_use"
    with Registry.open_readonly(tmp_path / "data") as looking:
        assert looking.resolve("sql") == version
        with pytest.raises(Forbidden):
            looking.remove("sql")
    assert register(registry, "sql", "two")[1]


def test_looking_at_an_empty_directory_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Registry.open_readonly(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_version_whose_files_were_deleted_is_listed_but_unavailable(registry: Registry) -> None:
    version, _ = register(registry, "sql", "one")
    version.directory.chmod(0o755)
    (version.directory / WEIGHTS_FILE).unlink()
    assert registry.versions("sql") == registry.newest() == [version]
    with pytest.raises(StorageUnavailable) as refused:
        registry.resolve("sql")
    assert refused.value.code == "adapter_files_missing"
    with pytest.raises(AssertionError, match="sql@1"):
        registry.check_integrity()
    assert register(registry, "sql", "one") == (version, False)
    assert registry.resolve("sql") == version


def test_verify_reads_the_bytes(registry: Registry) -> None:
    version, _ = register(registry, "sql", "one")
    registry.verify(version)
    (version.directory / WEIGHTS_FILE).chmod(0o644)
    (version.directory / WEIGHTS_FILE).write_text("eno")
    assert registry.resolve("sql") == version
    with pytest.raises(StorageUnavailable):
        registry.verify(version)


def test_staged_copies_are_ours_and_gone_at_the_end(registry: Registry, tmp_path: Path) -> None:
    source = write_files(tmp_path / "source", "one")
    with (source / WEIGHTS_FILE).open("rb") as opened, registry.stage(source / CONFIG_FILE, opened) as staged:
        (source / WEIGHTS_FILE).write_text("swapped")
        version, _ = registry.register("sql", staged, Facts(), "copy", {})
    assert weights_of(version) == "one"
    assert not list(registry.staging_dir.iterdir())
    (source / WEIGHTS_FILE).unlink()
    os.mkfifo(source / WEIGHTS_FILE)
    with pytest.raises(AdapterRejected), registry.stage(source / CONFIG_FILE, source / WEIGHTS_FILE):
        pass
    assert not list(registry.staging_dir.iterdir())


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails in this process, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_unavailable_and_registers_nothing(registry: Registry, tmp_path: Path) -> None:
    register(registry, "sql", "one")
    source = write_files(tmp_path / "source", "x" * 500_000)
    staging = registry.stage(source / CONFIG_FILE, source / WEIGHTS_FILE)
    with files_end_at(400_000), pytest.raises(StorageUnavailable) as refused, staging:
        pass
    assert refused.value.code == "storage_unavailable"
    assert str(tmp_path) not in refused.value.message
    assert not list(registry.staging_dir.iterdir())
    registry.check_integrity()


def test_a_database_on_a_full_disk_registers_nothing_and_recovers(registry: Registry, tmp_path: Path) -> None:
    version, _ = register(registry, "sql", "one")
    with files_end_at(16), pytest.raises(StorageUnavailable):
        register(registry, "sql", "two")
    assert registry.versions("sql") == [version]
    assert register(registry, "sql", "three")[0].number == 2
    registry.close()
    with Registry(tmp_path / "data") as again:
        assert len(again.versions("sql")) == len(list((tmp_path / "data" / "store").iterdir())) == 2
        again.check_integrity()


def test_a_broken_store_is_unavailable_and_registers_nothing(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "data" / "store").rmdir()
    (tmp_path / "data" / "store").write_text("no folder")
    with pytest.raises(StorageUnavailable):
        register(registry, "sql", "one")
    assert registry.names() == []


def test_a_broken_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("this is no database, however long one looks at it" * 100)
    with pytest.raises(StorageUnavailable):
        Registry(tmp_path)
