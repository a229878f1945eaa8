"""What one build in the workers' host memory is: a part that any number of compositions may share."""

import asyncio
from dataclasses import dataclass, replace

from server.engine.spec import Component
from server.servable import Member, Servable


@dataclass(frozen=True)
class Order:
    """A part that a composition needs: what to build, the key it is shared under, and whose it is."""

    key: str
    components: tuple[Component, ...]
    label: str
    versions: frozenset[str]
    digests: frozenset[str]


def orders_of(servable: Servable, *, runtime_weights: bool) -> tuple[Order, ...]:
    """Its parts: each member by itself where weights are applied per request, else the whole of it."""
    if runtime_weights:
        return tuple(_single(member) for member in servable.members)
    name, versions, digests = servable.name, servable.versions, servable.digests
    return (Order(name, servable.components, name, versions, digests),)


def _single(member: Member) -> Order:
    component = replace(member.component, weight=1.0)
    return Order(component.directory, (component,), member.label, member.versions, member.digests)


@dataclass(eq=False)
class Part:
    """One build in host memory, or on its way there."""

    order: Order
    lora_int_id: int
    prepared: "asyncio.Task[float]"
    """The seconds it took."""
    owners: set[frozenset[str]]
    """The versions it was asked for as, and is of use for while none of them is removed."""
    users: int = 0
    """Requests that wait for it or use it. Above 0 it may not be evicted."""

    @property
    def is_ready(self) -> bool:
        """Whether the workers have it."""
        return self.prepared.done() and not self.prepared.cancelled() and self.prepared.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether there will be none."""
        return self.prepared.done() and not self.is_ready

    @property
    def is_withdrawn(self) -> bool:
        """Whether all it was made for is removed: it leaves with its last user."""
        return not self.owners
