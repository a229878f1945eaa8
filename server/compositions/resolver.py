"""From what a request asks to what can be served: names to immutable versions, and whether they fit.

The registry is the truth; what was looked up is remembered until the registry changes, since every request
asks. Refusals happen here, before anything is built and before a byte is streamed.
"""

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cachetools import LRUCache

from lora_compose.adapters.composition.composition import STACK, Composition, Member
from lora_compose.adapters.errors import Code, InvalidRequest, Unservable
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.adapters.registry.versions import no_adapter

# ‖w·ΔW‖ beyond this overflows activations, and a NaN in the shared KV cache would reach other requests.
MAX_DELTA_NORM = 1e6
MAX_REMEMBERED = 8192
"""Look-ups that are remembered: compositions, versions, and the saved compositions as one."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class ResolvedComposition:
    """A composition whose members are versions: it can never come to mean anything else."""

    asked: Composition
    """As it was written: a member may name an alias, or no version."""
    composition: Composition
    versions: tuple[tuple[Member, Version], ...]
    rank: int
    """The rank it takes in the engine."""

    @property
    def name(self) -> str:
        """The canonical name: vLLM's `lora_name`, and so part of its KV cache's key."""
        return self.composition.canonical

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(version.id for _, version in self.versions)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(version.name for _, version in self.versions)

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(version.digest for _, version in self.versions)


class Resolver:
    """Pins compositions against one registry, for an engine that takes ranks up to `max_lora_rank`."""

    def __init__(self, registry: Registry, max_lora_rank: int) -> None:
        self._registry = registry
        self._max_lora_rank = max_lora_rank
        self._remembered: LRUCache[Hashable, Any] = LRUCache(MAX_REMEMBERED)
        self._changes = 0
        self._lock = threading.Lock()

    def registry_changed(self) -> None:
        """Forget what was looked up. Called after each change of the registry, from any thread."""
        with self._lock:
            self._changes += 1
            self._remembered.clear()

    def _once(self, key: Hashable, look_up: Callable[[], Found]) -> Found:
        """The answer of `look_up`, remembered under `key` until the registry changes."""
        with self._lock:
            changes, found = self._changes, self._remembered.get(key)
        if found is None:
            found = look_up()
            with self._lock:
                if changes == self._changes:  # else the registry changed meanwhile, and the answer may be old
                    self._remembered[key] = found
        return found

    def saved(self, name: str) -> Composition | None:
        """The saved composition of that name, if there is one."""
        return self._once("saved", self._registry.compositions).get(name)

    def pin(self, composition: Composition, sees: Callable[[str], bool] | None = None) -> ResolvedComposition:
        """Raises NotFound("model_not_found"), Unservable("rank_too_large") or InvalidRequest.

        To whom does not see a member it is as if it were not registered."""
        if sees is not None:
            self._refuse_unseen(composition, sees)
        return self._once(composition, lambda: self._pin(composition))

    def _refuse_unseen(self, composition: Composition, sees: Callable[[str], bool]) -> None:
        if all(sees(member.name) for member in composition.members):
            return
        for member in composition.members:  # the first that is missed is told, whichever way it is missing
            if not sees(member.name):
                raise no_adapter(member.name)
            self._version(member.name, member.ref)

    def _pin(self, composition: Composition) -> ResolvedComposition:
        found = {member: self._version(member.name, member.ref) for member in composition.members}
        pinned = composition.with_refs({member: version.number for member, version in found.items()})
        by_id = {version.id: version for version in found.values()}
        versions = tuple((member, by_id[member.id]) for member in pinned.members)
        _check_norms(found)
        rank = engine_rank(pinned, [version for _, version in versions])
        if rank > self._max_lora_rank:
            raise Unservable(Code.RANK_TOO_LARGE, self._too_large(pinned, rank), "model")
        return ResolvedComposition(composition, pinned, versions, rank)

    def _version(self, name: str, ref: str | None) -> Version:
        """Remembered for itself: a new composition is mostly made of adapters that are in use already."""
        return self._once((name, ref), lambda: self._registry.resolve(name, ref))

    def _too_large(self, composition: Composition, rank: int) -> str:
        limit = self._max_lora_rank
        return (
            f"{composition.canonical} needs rank {rank}; this server's max_lora_rank is {limit}. Merge at a "
            f'lower rank instead: "composition": {{"method": "svd", "rank": {limit}}}.'
        )


def _check_norms(found: Mapping[Member, Version]) -> None:
    for member, version in found.items():
        if abs(member.weight) * version.peak > MAX_DELTA_NORM:
            raise InvalidRequest(
                Code.INVALID_WEIGHT,
                f"{member.id} at weight {member.weight:g} overflows the model.",
                "adapters",
            )


def engine_rank(composition: Composition, versions: list[Version]) -> int:
    """The rank a composition takes in the engine: Σr of an exact one, the asked or largest r of a merge."""
    if composition.options.rank is not None:
        return composition.options.rank
    ranks = [version.rank for version in versions]
    return sum(ranks) if composition.method in (STACK, "linear") else max(ranks)
