"""Versions looked up while the registry changes in another thread."""

from collections.abc import Collection
from pathlib import Path

import pytest
from typing_extensions import override

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.server.compositions.resolver import MAX_CACHED, Resolver
from tests.adapters.registries import register


class Overtaken(Registry):
    """A registry that changes during the next look-up, so that the result of the look-up is old."""

    overtaking: str | None = None
    resolver: Resolver

    @override
    def resolve(self, name: str, ref: str | None = None, bases: Collection[str] | None = None) -> Version:
        found = super().resolve(name, ref, bases)
        if self.overtaking is not None:
            text, self.overtaking = self.overtaking, None
            register(self, name, text)
            self.resolver.registry_changed()
        return found


def test_what_was_looked_up_is_remembered_until_the_registry_changes(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        register(registry, "a", "first")
        resolver = Resolver(registry, 64)
        resolved = resolver.resolve(parse("a"))
        assert resolver.resolve(parse("a")) is resolved
        register(registry, "a", "second")
        resolver.registry_changed()
        assert resolver.resolve(parse("a")).name == "a@2"
        assert resolver.resolve(parse("a:0.5")).name == "a@2:0.5"


@pytest.mark.parametrize("again", ["a", "a:0.5"])
def test_an_answer_that_was_overtaken_is_not_remembered(tmp_path: Path, again: str) -> None:
    """Registering runs in another thread and calls `registry_changed` from there."""
    with Overtaken(tmp_path) as registry:
        register(registry, "a", "first")
        registry.resolver = Resolver(registry, 64)
        registry.overtaking = "second"
        registry.resolver.resolve(parse("a"))
        assert registry.resolver.resolve(parse(again)).versions[0][1].number == 2


def test_of_many_look_ups_the_one_used_longest_ago_is_forgotten_first(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        register(registry, "a", "first")
        resolver = Resolver(registry, 64)
        seldom, often = resolver.resolve(parse("a:0.25")), resolver.resolve(parse("a"))
        for number in range(MAX_CACHED):
            resolver.resolve(parse(f"a:{1 + number / 65536}"))
            assert resolver.resolve(parse("a")) is often
        assert resolver.resolve(parse("a:0.25")) is not seldom
