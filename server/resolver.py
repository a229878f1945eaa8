"""From what a request asks to what can be served: names to immutable versions, and whether they fit.

The registry is the truth; what was looked up is remembered until the registry changes, since every request
asks. Refusals happen here, before anything is built and before a byte is streamed.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.composition import Composition, Member
from adapters.errors import InvalidRequest, Unservable
from adapters.method_options import STACK
from adapters.registry import Registry
from adapters.store import Version
from adapters.version_rows import no_adapter

# ‖w·ΔW‖ beyond this overflows activations, and a NaN in the shared KV cache would reach other requests.
MAX_DELTA_NORM = 1e6


@dataclass(frozen=True)
class Pinned:
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
        self._pinned: dict[Composition, Pinned] = {}
        self._versions: dict[tuple[str, str | None], Version] = {}
        self._saved: dict[str, Composition] | None = None
        self._changes = 0
        self._lock = threading.Lock()

    def registry_changed(self) -> None:
        """Forget what was looked up. Whoever changes the registry calls this, from whatever thread."""
        with self._lock:
            self._changes += 1
            self._pinned.clear()
            self._versions.clear()
            self._saved = None

    def saved(self, name: str) -> Composition | None:
        """The saved composition of that name, if there is one."""
        saved = self._saved
        if saved is None:
            changes, saved = self._changes, self._registry.compositions()
            with self._lock:
                if changes == self._changes:
                    self._saved = saved
        return saved.get(name)

    def pin(self, composition: Composition, sees: Callable[[str], bool] | None = None) -> Pinned:
        """Raises NotFound("model_not_found"), Unservable("rank_too_large") or InvalidRequest.

        To whom does not see a member it is as if it were not registered."""
        if sees is not None:
            self._refuse_unseen(composition, sees)
        pinned = self._pinned.get(composition)
        if pinned is None:
            changes, pinned = self._changes, self._pin(composition)
            with self._lock:
                if len(self._pinned) >= 4096:
                    self._pinned.clear()
                if changes == self._changes:  # else it was overtaken, and is old already
                    self._pinned[composition] = pinned
        return pinned

    def _refuse_unseen(self, composition: Composition, sees: Callable[[str], bool]) -> None:
        if all(sees(member.name) for member in composition.members):
            return
        for member in composition.members:  # the first that is missed is told, whichever way it is missing
            if not sees(member.name):
                raise no_adapter(member.name)
            self._version(member.name, member.ref)

    def _pin(self, composition: Composition) -> Pinned:
        found = {member: self._version(member.name, member.ref) for member in composition.members}
        pinned = composition.with_refs({member: version.number for member, version in found.items()})
        by_id = {version.id: version for version in found.values()}
        versions = tuple((member, by_id[member.id]) for member in pinned.members)
        _check_norms(found)
        rank = engine_rank(pinned, [version for _, version in versions])
        if rank > self._max_lora_rank:
            raise Unservable("rank_too_large", self._too_large(pinned, rank), "model")
        return Pinned(composition, pinned, versions, rank)

    def _version(self, name: str, ref: str | None) -> Version:
        """Looked up once: a composition nobody has asked for yet is mostly made of adapters somebody has."""
        version = self._versions.get((name, ref))
        if version is None:
            changes, version = self._changes, self._registry.resolve(name, ref)
            with self._lock:
                if changes == self._changes:
                    self._versions[name, ref] = version
        return version

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
                "invalid_weight", f"{member.id} at weight {member.weight:g} overflows the model.", "adapters"
            )


def engine_rank(composition: Composition, versions: list[Version]) -> int:
    """The rank a composition takes in the engine: Σr of an exact one, the asked or largest r of a merge."""
    if composition.options.rank is not None:
        return composition.options.rank
    ranks = [version.rank for version in versions]
    return sum(ranks) if composition.method in (STACK, "linear") else max(ranks)
