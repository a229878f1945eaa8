"""A composition as the engine needs it: what it is made of in the store, and what those files belong to."""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_compose.server.engine.spec import Component


@dataclass(frozen=True)
class StoredAdapter:
    """One directory of the store in a composition: an adapter, or a merge of several."""

    component: Component
    versions: frozenset[str]
    """`name@number` of every adapter in it."""
    digests: frozenset[str]
    """The bytes of those."""

    @property
    def label(self) -> str:
        """For people: the adapter, or the adapters of a merge."""
        return "+".join(sorted(self.versions))


@dataclass(frozen=True)
class Servable:
    """A composition ready for the engine, under its canonical name."""

    name: str
    members: tuple[StoredAdapter, ...]

    @property
    def components(self) -> tuple[Component, ...]:
        """What its spec says."""
        return tuple(member.component for member in self.members)

    @property
    def versions(self) -> frozenset[str]:
        """Of all members."""
        return _union(member.versions for member in self.members)

    @property
    def digests(self) -> frozenset[str]:
        """Of all members."""
        return _union(member.digests for member in self.members)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
