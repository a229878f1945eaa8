from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from lora_compose.adapters.errors import NotFound
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import register, weights_of

T = TypeVar("T")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path) as registry:
        yield registry


def together(calls: int, call: Callable[[int], T]) -> list[T]:
    """The results of `call(0)`, `call(1)`, …, with eight calls at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(call, range(calls)))


def test_the_same_bytes_from_many_threads_are_one_version(registry: Registry) -> None:
    results = together(24, lambda _: register(registry, "sql", "one"))
    assert sum(created for _, created in results) == 1
    assert {version.id for version, _ in results} == {"sql@1"}


def test_different_bytes_from_many_threads_get_different_numbers(registry: Registry) -> None:
    results = together(24, lambda index: register(registry, "sql", f"{index}"))
    assert sorted(version.number for version, _ in results) == list(range(1, 25))
    assert {version.number: weights_of(version) for version in registry.versions("sql")} == {
        version.number: f"{index}" for index, (version, _) in enumerate(results)
    }


def test_registering_removing_and_sweeping_at_once_loses_and_leaks_nothing(registry: Registry) -> None:
    def turn(index: int) -> int:
        if index % 2:
            return register(registry, "sql", f"{index % 5}")[1]
        try:
            removed = len(registry.remove("sql"))
        except NotFound:
            removed = 0
        registry.sweep()
        return -removed

    balance = sum(together(200, turn))
    assert balance == len(registry.versions("sql") if registry.names() else [])
    registry.check_integrity()
    registry.sweep()
    live = {version.digest for name in registry.names() for version in registry.versions(name)}
    assert {path.name for path in registry.staging_dir.parent.joinpath("store").iterdir()} == live


def test_a_moving_alias_always_names_a_version(registry: Registry) -> None:
    for text in ("one", "two"):
        register(registry, "sql", text)
    registry.set_alias("sql", "prod", "1")

    def turn(index: int) -> int:
        if index % 4 == 0:
            return registry.set_alias("sql", "prod", str(1 + index % 8 // 4)).number
        return registry.resolve("sql", "prod").number

    assert set(together(200, turn)) == {1, 2}


def test_an_alias_that_moves_on_before_its_version_goes_never_fails(registry: Registry) -> None:
    def roll() -> None:
        for index in range(20):
            version, _ = register(registry, "sql", f"{index}")
            registry.set_alias("sql", "prod")
            if index:
                registry.remove("sql", str(version.number - 1))
            registry.sweep()

    register(registry, "sql", "0")
    registry.set_alias("sql", "prod")
    with ThreadPoolExecutor(4) as pool:
        rolling = pool.submit(roll)
        while not rolling.done():
            assert registry.resolve("sql", "prod").name == "sql"
        rolling.result()
