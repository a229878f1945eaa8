from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_compose.adapters.peft.files import WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import add_merge, register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path) as registry:
        yield registry


def test_a_merge_is_found_by_its_key_also_after_a_restart(registry: Registry, tmp_path: Path) -> None:
    member, _ = register(registry, "sql", "one")
    assert registry.merges.find("key") is None
    assert registry.merges.report("key") is None
    path = add_merge(registry, "key", "merged", [member.digest])
    registry.close()
    with Registry(tmp_path) as again:
        assert again.merges.find("key") == path
        assert again.merges.report("key") == {"relative_error": 0.25}
        assert (path / WEIGHTS_FILE).read_text() == "merged"


def test_a_merge_goes_when_a_members_bytes_go(registry: Registry) -> None:
    one, other = register(registry, "a", "one")[0], register(registry, "b", "two")[0]
    path = add_merge(registry, "key", "merged", [one.digest, other.digest])
    registry.remove("a")
    registry.sweep(keep={one.digest})
    assert registry.merges.find("key") == path
    assert registry.sweep() == {one.digest, path.name}
    assert registry.merges.find("key") is None
    registry.check_integrity()


def test_a_damaged_merge_is_as_good_as_none_and_built_again(registry: Registry) -> None:
    member, _ = register(registry, "sql", "one")
    path = add_merge(registry, "key", "merged", [member.digest])
    path.chmod(0o755)
    (path / WEIGHTS_FILE).unlink()
    assert registry.merges.find("key") is None
    assert add_merge(registry, "key", "merged", [member.digest]) == path
    assert registry.merges.find("key") == path
    registry.check_integrity()


def test_a_merge_that_gave_an_adapters_bytes_shares_them(registry: Registry) -> None:
    member, _ = register(registry, "sql", "one")
    assert add_merge(registry, "key", "one", [member.digest, member.digest]) == member.directory
    assert registry.sweep() == set()


def nothing(key: str, digest: str) -> bool:
    return False


def test_the_least_recently_used_merges_are_removed_first(registry: Registry) -> None:
    for key in "abc":
        add_merge(registry, key, f"merge {key}", [])
    size = registry.merges.size()[1] // 3
    assert registry.merges.find("a") is not None
    assert registry.merges.trim(2 * size, nothing) == (1, 2 * size)
    assert [key for key in "abc" if registry.merges.find(key)] == ["a", "c"]


def test_a_merge_in_use_is_never_removed(registry: Registry) -> None:
    for key in "ab":
        add_merge(registry, key, f"merge {key}", [])
    removed, size = registry.merges.trim(0, lambda key, _: key == "a")
    assert (removed, size > 0) == (1, True)
    assert [key for key in "ab" if registry.merges.find(key)] == ["a"]


def test_uses_are_remembered_by_the_next_registry(registry: Registry, tmp_path: Path) -> None:
    for key in "ab":
        add_merge(registry, key, f"merge {key}", [])
    registry.merges.find("a")
    registry.merges.trim(1 << 40, nothing)
    registry.close()
    with Registry(tmp_path) as again:
        assert again.merges.trim(again.merges.size()[1] - 1, nothing)[0] == 1
        assert again.merges.find("a") is not None


def test_files_that_a_version_has_too_stay_when_their_merge_goes(registry: Registry) -> None:
    version, _ = register(registry, "sql", "one")
    add_merge(registry, "key", "one", [])
    registry.merges.trim(0, nothing)
    registry.require_files(version)
