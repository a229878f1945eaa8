"""Real data directories, with one fault in each."""

from pathlib import Path

import pytest

from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.doctor import data_directory
from lora_compose.server.doctor.check import Result, examine
from tests.adapters.registries import register


def look(directory: Path) -> dict[str, Result]:
    return {check.name: examine(check) for check in data_directory.checks(directory)}


def statuses(directory: Path) -> dict[str, str]:
    return {name: found.status for name, found in look(directory).items()}


def contents(directory: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A registry of three versions that no server uses now."""
    with Registry(tmp_path / "data") as registry:
        for name, text in (("sql", "one"), ("sql", "two"), ("polite", "three")):
            register(registry, name, text)
    return tmp_path / "data"


def damage(home: Path, text: str) -> None:
    """Change one byte of the stored file that holds `text`."""
    for file in home.glob("store/*/adapter_model.safetensors"):
        if file.read_text() == text:
            file.chmod(0o644)
            file.write_text(text[:-1] + "!")


def test_a_sound_registry_is_told_and_left_as_it_was(home: Path) -> None:
    before = contents(home)
    found = look(home)
    assert {result.status for result in found.values()} == {"ok"}
    assert "2 adapters" in found["registry"].sentence
    assert "3 versions" in found["stored files"].sentence
    assert contents(home) == before


def test_a_directory_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    assert set(statuses(tmp_path / "new" / "data").values()) == {"ok"}
    assert not (tmp_path / "new").exists()


def test_a_file_whose_bytes_changed_is_found_by_its_version(home: Path) -> None:
    damage(home, "two")
    found = look(home)
    assert found["registry"].status == "ok", "sizes alone do not tell"
    assert (found["stored files"].status, "sql@2" in found["stored files"].sentence) == ("fail", True)
    assert "sql@1" not in found["stored files"].sentence


def test_a_file_that_is_gone_is_found(home: Path) -> None:
    next(home.glob("store/*")).chmod(0o755)
    next(home.glob("store/*/adapter_model.safetensors")).unlink()
    found = look(home)
    assert (found["registry"].status, found["stored files"].status) == ("fail", "fail")


def test_a_database_that_is_none_fails_with_its_own_words(home: Path) -> None:
    (home / "registry.db").write_bytes(b"this is no database, and never was one" * 100)
    found = look(home)["registry"]
    assert (found.status, "not a database" in found.sentence) == ("fail", True), found


def test_a_directory_somebody_owns_is_a_warning_and_can_still_be_read(home: Path) -> None:
    with Registry(home):
        found = statuses(home)
    assert found.pop("lock") == "warn"
    assert set(found.values()) == {"ok"}
    assert statuses(home)["lock"] == "ok"


def test_a_file_in_place_of_the_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert statuses(tmp_path / "data")["permission"] == "fail"


def test_a_place_nobody_can_write_to_fails() -> None:
    assert statuses(Path("/proc/lora-compose"))["permission"] == "fail"
