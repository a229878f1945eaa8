"""Resolves a composition: names become immutable versions, and it is checked that the engine can serve them.

Look-ups in the registry are cached until the registry changes, because every request needs them. Refusals
happen here, before anything is built and before the first byte of an answer is sent.
"""

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cachetools import LRUCache

from lora_compose.adapters.composition.composition import STACK, Composition, Member
from lora_compose.adapters.errors import Code, InvalidRequest, NotFound, Unservable
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.adapters.registry.versions import no_adapter
from lora_compose.server.compositions.numbers import by_number
from lora_compose.server.compositions.served_bases import ServedBases

# A larger ‖w·ΔW‖ overflows activations, and a NaN in the shared KV cache would reach other requests.
MAX_DELTA_NORM = 1e6
MAX_CACHED = 8192
"""Number of cached look-ups: compositions, versions, and one entry each for all that is saved or numbered."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class ResolvedComposition:
    """A composition whose members are immutable versions, so that its meaning cannot change."""

    requested: Composition
    """The composition of the request: a member may name an alias, or no version."""
    composition: Composition
    versions: tuple[tuple[Member, Version], ...]
    rank: int
    """The rank that it needs in the engine."""

    @property
    def name(self) -> str:
        """The canonical name. vLLM uses it as `lora_name`, which is part of the key of its KV cache."""
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
    """Resolves compositions with one registry, for an engine that supports ranks up to `max_lora_rank`.

    `served` are the bases whose versions are served. None: every version is. `modules` are the last parts of
    the names of the modules that the engine adapts. None: all."""

    def __init__(
        self,
        registry: Registry,
        max_lora_rank: int,
        served: ServedBases | None = None,
        *,
        modules: frozenset[str] | None = None,
    ) -> None:
        self._registry = registry
        self._max_lora_rank = max_lora_rank
        self._modules = modules
        self.served = served
        self._cache: LRUCache[Hashable, Any] = LRUCache(MAX_CACHED)
        self._changes = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of the registry, from the thread of the change."""
        self._listeners.append(listener)

    def registry_changed(self) -> None:
        """Clear the cache. Called after each change of the registry, from any thread."""
        with self._lock:
            self._changes += 1
            self._cache.clear()
        for listener in self._listeners:
            listener()

    def _cached(self, key: Hashable, look_up: Callable[[], Found]) -> Found:
        """The result of `look_up`, cached under `key` until the registry changes."""
        with self._lock:
            changes, found = self._changes, self._cache.get(key)
        if found is None:
            found = look_up()
            with self._lock:
                if changes == self._changes:  # else the registry changed meanwhile, and the result may be old
                    self._cache[key] = found
        return found

    def saved(self, name: str) -> Composition | None:
        """The saved composition of that name, or None."""
        return self._cached("saved", self._registry.compositions).get(name)

    def numbered(self, number: int) -> Version | None:
        """The version with that number in `GET /lora-adapters`, or None."""
        return self._cached("numbered", lambda: by_number(v for v, _ in self._registry.catalogue())).get(
            number
        )

    def resolve(
        self, composition: Composition, sees: Callable[[str], bool] | None = None
    ) -> ResolvedComposition:
        """Raises NotFound("model_not_found"), InvalidRequest, and Unservable rank_too_large, wrong_base or
        unknown_module.

        If `sees` is false for a member, the error is the same as for an adapter that does not exist."""
        if sees is not None:
            self._refuse_unseen(composition, sees)
        return self._cached(composition, lambda: self._resolve(composition))

    def _refuse_unseen(self, composition: Composition, sees: Callable[[str], bool]) -> None:
        if all(sees(member.name) for member in composition.members):
            return
        # Report the first missing member, whether it is hidden or does not exist.
        for member in composition.members:
            if not sees(member.name):
                raise no_adapter(member.name)
            self._version(member.name, member.ref)

    def _resolve(self, composition: Composition) -> ResolvedComposition:
        found = {member: self._version(member.name, member.ref) for member in composition.members}
        resolved = composition.with_refs({member: version.number for member, version in found.items()})
        by_id = {version.id: version for version in found.values()}
        versions = tuple((member, by_id[member.id]) for member in resolved.members)
        _check_norms(found)
        self._check_modules(found.values())
        rank = engine_rank(resolved, [version for _, version in versions])
        if rank > self._max_lora_rank:
            raise Unservable(Code.RANK_TOO_LARGE, self._too_large(resolved, rank), "model")
        return ResolvedComposition(composition, resolved, versions, rank)

    def _version(self, name: str, ref: str | None) -> Version:
        """Versions are cached too, because most members of a new composition are already in use."""
        return self._cached((name, ref), lambda: self._look_up(name, ref))

    def _look_up(self, name: str, ref: str | None) -> Version:
        version = self._registry.resolve(name, ref, self.fingerprints)
        if self.served is not None:
            self.served.require(version)
        return version

    @property
    def fingerprints(self) -> Collection[str] | None:
        """The bases whose versions are served. None: every version is."""
        return None if self.served is None else self.served.fingerprints

    def version(self, name: str, ref: str | None) -> Version:
        """The version that a request for `name@ref` gets alone. Raises as `resolve` does."""
        return self._version(name, ref)

    def is_for_this_base(self, composition: Composition) -> bool:
        """Whether all its members were admitted for a base that is served. False if one does not exist."""
        try:
            for member in composition.members:
                self._version(member.name, member.ref)
        except (NotFound, Unservable):
            return False
        return True

    def _check_modules(self, versions: Iterable[Version]) -> None:
        """Refuse a version that was registered before the server got other --lora-target-modules."""
        for version in versions:
            left = sorted({*version.coverage.get("modules", ())} - (self._modules or set()))
            if self._modules is not None and left:
                message = (
                    f"{version.id} adapts {', '.join(left)}, and this server applies LoRA only to "
                    f"{', '.join(sorted(self._modules))}. Start it with other --lora-target-modules."
                )
                raise Unservable(Code.UNKNOWN_MODULE, message, "model")

    def _too_large(self, composition: Composition, rank: int) -> str:
        limit = self._max_lora_rank
        return (
            f"{composition.canonical} needs rank {rank}, but this server's max_lora_rank is {limit}. Merge "
            f'the adapters to a lower rank: "composition": {{"method": "svd", "rank": {limit}}}.'
        )


def _check_norms(found: Mapping[Member, Version]) -> None:
    for member, version in found.items():
        if abs(member.weight) * version.peak > MAX_DELTA_NORM:
            raise InvalidRequest(
                Code.INVALID_WEIGHT,
                f"The weight {member.weight:g} of {member.id} is too large: activations would overflow.",
                "adapters",
            )


def engine_rank(composition: Composition, versions: list[Version]) -> int:
    """The rank that a composition needs in the engine.

    An exact sum needs Σr. A merge needs its requested rank, or else the largest r of its members."""
    if composition.options.rank is not None:
        return composition.options.rank
    ranks = [version.rank for version in versions]
    return sum(ranks) if composition.method in (STACK, "linear") else max(ranks)
