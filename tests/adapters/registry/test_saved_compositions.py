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
        for name, text in [("sql", "one"), ("sql", "two"), ("polite", "three")]:
            register(registry, name, text)
        registry.set_alias("sql", "prod", "1")
        yield registry


@pytest.mark.parametrize("text", ["sql:0.7+polite:0.3", "ties(polite@1+sql@prod:-2,density=0.3,rank=16)"])
def test_a_saved_composition_keeps_its_references_as_written(registry: Registry, text: str) -> None:
    assert registry.save_composition("mine", parse(text))
    assert not registry.save_composition("mine", parse(text))
    assert registry.composition("mine") == parse(text)
    assert registry.compositions() == {"mine": parse(text)}


def test_a_deleted_composition_is_gone_and_frees_its_name(registry: Registry) -> None:
    registry.save_composition("mine", parse("sql"))
    registry.delete_composition("mine")
    for look in (registry.composition, registry.delete_composition):
        with pytest.raises(NotFound) as refused:
            look("mine")
        assert refused.value.code == "composition_not_found"
    assert register(registry, "mine", "four")[1]


@pytest.mark.parametrize(
    ("name", "code"), [("sql", "name_reserved"), ("svd", "name_reserved"), ("mine", "name_taken")]
)
def test_a_name_means_one_thing(registry: Registry, name: str, code: str) -> None:
    registry.save_composition("mine", parse("polite"))
    with pytest.raises(Conflict) as refused:
        registry.save_composition(name, parse("sql:0.5"))
    assert refused.value.code == code
    assert registry.compositions() == {"mine": parse("polite")}


@pytest.mark.parametrize("text", ["sql+nobody", "sql@9", "sql@test"])
def test_a_member_must_be_registered(registry: Registry, text: str) -> None:
    with pytest.raises(NotFound):
        registry.save_composition("mine", parse(text))


def test_two_references_to_one_version_are_one_member_named_twice(registry: Registry) -> None:
    with pytest.raises(InvalidRequest) as refused:
        registry.save_composition("mine", parse("sql@1+sql@prod"))
    assert refused.value.code == "duplicate_member"


@pytest.mark.parametrize(
    ("text", "ref", "needed"),
    [
        ("sql", None, True),
        ("sql", "1", False),
        ("sql", "2", False),
        ("sql@1", "1", True),
        ("sql@1", "2", False),
        ("sql@prod", "1", True),
        ("sql@prod", "2", False),
        ("polite", None, False),
    ],
)
def test_what_a_composition_needs_cannot_be_removed(
    registry: Registry, text: str, ref: str | None, needed: bool
) -> None:
    registry.save_composition("mine", parse(text))
    if needed:
        with pytest.raises(Conflict) as refused:
            registry.remove("sql", ref)
        assert refused.value.code == "in_use"
        assert "mine" in refused.value.message
        assert len(registry.versions("sql")) == 2
    registry.remove("sql", ref, cascade=True)
    assert registry.compositions() == ({} if needed else {"mine": parse(text)})
    registry.check_integrity()
