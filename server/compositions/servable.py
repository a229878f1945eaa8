"""A composition ready for the engine: the directories in the store, and the weight of each."""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_compose.server.engine.spec import Component


@dataclass(frozen=True)
class StoredAdapter:
    """A directory of the store in a composition: an adapter, or a merge of several."""

    component: Component
    versions: frozenset[str]
    """`name@number` of every adapter in it."""
    digests: frozenset[str]
    """The digest of every adapter in it."""
    label: str
    """The name in logs and in `/v1/residency`: the adapter, or the canonical name of the merge."""


@dataclass(frozen=True)
class Servable:
    """A composition ready for the engine, under its canonical name."""

    name: str
    members: tuple[StoredAdapter, ...]

    @property
    def components(self) -> tuple[Component, ...]:
        """The members' directories and weights, as the engine's spec needs them."""
        return tuple(member.component for member in self.members)

    @property
    def versions(self) -> frozenset[str]:
        """The versions of all members."""
        return _union(member.versions for member in self.members)

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all members."""
        return _union(member.digests for member in self.members)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
