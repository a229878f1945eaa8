from pathlib import Path

import pytest

from lora_compose.adapters.errors import Conflict
from lora_compose.adapters.registry.data_dir import ID_FILE
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import register


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_another_database_does_not_sweep_the_store(tmp_path: Path) -> None:
    with Registry(tmp_path / "data") as registry:
        version, _ = register(registry, "sql", "one")
    with pytest.raises(Conflict) as refused:
        Registry(tmp_path / "data", url(tmp_path / "other.db"))
    assert refused.value.code == "wrong_database"
    with Registry(tmp_path / "data") as registry:
        assert registry.resolve("sql") == version


def test_a_database_is_not_opened_beside_another_directory(tmp_path: Path) -> None:
    with Registry(tmp_path / "data", url(tmp_path / "my.db")) as registry:
        register(registry, "sql", "one")
    Registry(tmp_path / "other").close()
    with pytest.raises(Conflict) as refused:
        Registry(tmp_path / "other", url(tmp_path / "my.db"))
    assert refused.value.code == "wrong_database"


def test_a_database_is_not_opened_beside_an_empty_directory(tmp_path: Path) -> None:
    with Registry(tmp_path / "data", url(tmp_path / "my.db")) as registry:
        register(registry, "sql", "one")
    with pytest.raises(Conflict) as refused:
        Registry(tmp_path / "new", url(tmp_path / "my.db"))
    assert refused.value.code == "wrong_database"


@pytest.mark.parametrize("written", ["", "6d1f"])
def test_a_first_start_killed_before_its_row_was_committed_starts_again(tmp_path: Path, written: str) -> None:
    (tmp_path / ID_FILE).write_text(written)
    with Registry(tmp_path) as registry:
        register(registry, "sql", "one")
    with Registry(tmp_path) as registry:
        assert registry.names() == ["sql"]
