"""Describes versions as JSON objects, for a server and for commands that read a registry without one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compose.adapters.registry.store import Base, Version


@dataclass(frozen=True)
class Served:
    """The base that is served, and all fingerprints whose versions are served: its own, and accepted ones."""

    base: Base
    fingerprints: Collection[str]

    def why_not(self, version: Version) -> str | None:
        """Why the version is not served on this base, and what to do. None if it is served."""
        if version.is_for(self.fingerprints):
            return None
        others = " and ".join(map(str, version.bases))
        return (
            f"{version.id} was registered for another base: {others}. This server's base is {self.base}. "
            "Register the files again here, which admits them for this base, or start the server with "
            f"--accept-base {version.bases[0].fingerprint[:12]}."
        )


def describe(version: Version, aliases: Sequence[str], served: Served | None) -> dict[str, Any]:
    """One version as JSON. `aliases` are the aliases that point to it. Without `served`, "served" is null."""
    reason = None if served is None else served.why_not(version)
    is_own = served is not None and version.is_for({served.base.fingerprint})
    base = served.base if served and is_own else version.bases[0]
    return {
        "object": "adapter",
        "id": version.id,
        "name": version.name,
        "version": version.number,
        "digest": version.digest,
        "rank": version.rank,
        "bytes": version.bytes,
        "created_at": int(version.created_at.timestamp()),
        "source": version.source,
        "base": base.name,
        "base_fingerprint": base.fingerprint,
        "served": None if served is None else reason is None,
        "expires_at": None if version.expires_at is None else int(version.expires_at.timestamp()),
        "aliases": list(aliases),
        "parameters": version.parameters,
        "coverage": version.coverage,
        "warnings": list(version.warnings) if reason is None else [f"other_base: {reason}"],
        "lineage": version.lineage.get("training", {}),
    }
