from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Conflict, InvalidRequest, NotFound
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path) as registry:
        for text in ("one", "two"):
            register(registry, "sql", text)
        yield registry


def test_an_alias_moves_forward_and_back(registry: Registry) -> None:
    assert registry.set_alias("sql", "prod").number == 2
    assert registry.set_alias("sql", "prod", "1").number == 1
    assert registry.set_alias("sql", "canary", "prod").number == 1
    register(registry, "sql", "three")
    assert registry.aliases("sql") == {"canary": 1, "prod": 1}
    assert registry.resolve("sql", "prod").number == 1


def test_an_alias_goes_with_its_version(registry: Registry) -> None:
    registry.set_alias("sql", "prod", "1")
    registry.set_alias("sql", "next", "2")
    registry.remove("sql", "prod")
    assert registry.aliases("sql") == {"next": 2}
    assert [version.number for version in registry.versions("sql")] == [2]


def test_a_removed_alias_is_gone_and_its_version_stays(registry: Registry) -> None:
    registry.set_alias("sql", "prod", "1")
    registry.remove_alias("sql", "prod")
    with pytest.raises(NotFound) as refused:
        registry.remove_alias("sql", "prod")
    assert refused.value.code == "alias_not_found"
    assert len(registry.versions("sql")) == 2


def test_an_alias_that_a_composition_needs_cannot_be_removed(registry: Registry) -> None:
    registry.set_alias("sql", "prod", "1")
    registry.save_composition("half", parse("sql@prod:0.5"))
    with pytest.raises(Conflict) as refused:
        registry.remove_alias("sql", "prod")
    assert refused.value.code == "in_use"
    assert "half" in refused.value.message


@pytest.mark.parametrize(("alias", "ref"), [("prod", "7"), ("prod", "unknown")])
def test_an_alias_never_points_nowhere(registry: Registry, alias: str, ref: str) -> None:
    with pytest.raises(NotFound):
        registry.set_alias("sql", alias, ref)
    assert registry.aliases("sql") == {}


def test_an_alias_is_no_number(registry: Registry) -> None:
    with pytest.raises(InvalidRequest):
        registry.set_alias("sql", "3", "1")
