"""The warnings of a saved or predicted composition (see `adapters.merging.advice`). They refuse nothing."""

import logging
from collections.abc import Sequence
from pathlib import PureWindowsPath
from threading import Lock
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from lora_compose.adapters.composition.composition import Member
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.merging.advice import Advice, advise, of_different_bases
from lora_compose.adapters.registry.store import Version
from lora_compose.server.compositions.resolver import ResolvedComposition, Resolver

if TYPE_CHECKING:
    from lora_compose.adapters.merging.interference import Interference

logger = logging.getLogger(__name__)

MAX_CACHED = 1024


class CompositionWarnings:
    """Remembers the comparison of the last members. Any thread may call `of`, which reads the files."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._compared: LRUCache[tuple[str, ...], Interference] = LRUCache(MAX_CACHED)
        self._lock = Lock()

    def of(self, resolved: ResolvedComposition) -> list[Advice]:
        """The warnings. Empty for a single adapter, or if a file cannot be read (a request reports it)."""
        members = resolved.requested.members
        versions = [self._resolver.version(member.name, member.ref) for member in members]
        if len(members) < 2:
            return []
        try:
            found = self._compare(versions)
        except LoraComposeError as error:
            logger.warning("the members of %s cannot be compared: %s", resolved.name, error.message)
            return []
        return [*different_bases(members, versions), *advise(resolved.requested, found)]

    def _compare(self, versions: Sequence[Version]) -> "Interference":
        key = tuple(version.digest for version in versions)
        with self._lock:
            found = self._compared.get(key)
        if found is None:
            from lora_compose.adapters.merging.interference import interference  # it imports torch

            found = interference([version.directory for version in versions])
            with self._lock:
                self._compared[key] = found
        return found


def different_bases(members: Sequence[Member], versions: Sequence[Version]) -> list[Advice]:
    """A warning if two members were trained on different bases, as far as their files say it."""
    bases = zip(members, map(_base_of, versions), strict=True)
    return of_different_bases([(member.id, base) for member, base in bases if base])


def _base_of(version: Version) -> str | None:
    """The fingerprint of the base that it was trained on, or else the last part of the base's name."""
    training: dict[str, Any] = version.lineage.get("training") or {}
    fingerprint = training.get("base_fingerprint")
    if isinstance(fingerprint, str):
        return fingerprint[:12]
    named = version.lineage.get("base_model_name_or_path")
    return PureWindowsPath(named).name if isinstance(named, str) and named else None
