"""The rows of versions and aliases, within one session.

An alias is a name for a version that can be moved to another version. It is one row, so moving it is atomic.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from lora_compose.adapters.errors import Code, NotFound, StorageUnavailable
from lora_compose.adapters.names import check_alias, is_version
from lora_compose.adapters.registry.database import (
    AdapterRow,
    AliasRow,
    RetiredRow,
    VersionBaseRow,
    VersionRow,
)
from lora_compose.adapters.registry.store import UNKNOWN_BASE, Base, Content, Store, Version


class Admitted(Protocol):
    """The JSON-able facts that admission found about an adapter. `admit.Admission` has them."""

    @property
    def rank(self) -> int: ...
    @property
    def parameters(self) -> int: ...
    @property
    def peak(self) -> float: ...
    @property
    def coverage(self) -> dict[str, Any]: ...
    @property
    def warnings(self) -> Sequence[str]: ...


NO_BASE = Base(UNKNOWN_BASE, UNKNOWN_BASE)


@dataclass(frozen=True)
class Terms:
    """What a registration asks for besides its files."""

    alias: str | None = None
    """An alias to point at the version in the same transaction."""
    base: Base = NO_BASE
    """The base that the adapter was admitted for."""
    ttl_seconds: int | None = None
    """The version expires after this many seconds. None: it does not expire."""


REASONS = {
    "expired": "it expired (ttl_seconds)",
    "replaced": "another version replaced it (load_inplace)",
    "superseded": "newer versions superseded it (--keep-versions)",
}
"""Why the server removed a version by itself."""


def versions_of(session: Session, name: str) -> list[VersionRow]:
    """The versions of `name`, oldest first. Raises NotFound("model_not_found") if it has none."""
    rows = list(session.scalars(select(VersionRow).filter_by(name=name).order_by(VersionRow.number)))
    if not rows:
        adapter = session.get(AdapterRow, name)
        last = (name, adapter.last_number if adapter else 0)
        raise _retired(session.get(RetiredRow, last)) or no_adapter(name)
    return rows


def no_adapter(name: str) -> NotFound:
    """The error for a name that is not registered."""
    return NotFound(Code.MODEL_NOT_FOUND, f"There is no adapter {name!r}.", "model")


def _retired(row: RetiredRow | None) -> NotFound | None:
    """The error for a version that the server removed by itself."""
    if row is None:
        return None
    when = datetime.fromtimestamp(row.retired_at, UTC).isoformat(timespec="seconds")
    return NotFound(
        Code.MODEL_NOT_FOUND,
        f"The version {row.name}@{row.number} was removed at {when}: {REASONS[row.reason]}. "
        "Register it again, or ask for another version.",
        "model",
    )


def find_version(
    session: Session, name: str, ref: str | None, bases: Collection[str] | None = None
) -> VersionRow:
    """The version for a number, an alias, or None (the newest). Raises NotFound("model_not_found").

    With `bases` (fingerprints), the newest is the newest that was admitted for one of them, if there is one.
    """
    row = _newest_of(session, name, bases) if ref is None else _numbered(session, name, ref)
    if row is not None:
        return row
    number = int(ref) if ref is not None and is_version(ref) else 0
    if (retired := _retired(session.get(RetiredRow, (name, number)))) is not None:
        raise retired
    versions_of(session, name)
    raise NotFound(Code.MODEL_NOT_FOUND, f"The adapter {name!r} has no version or alias {ref!r}.", "model")


def _newest_of(session: Session, name: str, bases: Collection[str] | None) -> VersionRow | None:
    rows = select(VersionRow).filter_by(name=name).order_by(VersionRow.number.desc()).limit(1)
    if bases is not None:
        admitted = VersionBaseRow.fingerprint.in_(bases)
        found = session.scalars(rows.where(VersionRow.bases.any(admitted))).first()
        if found is not None:
            return found
    return session.scalars(rows).first()


def _numbered(session: Session, name: str, ref: str) -> VersionRow | None:
    """Look up by primary key, because a name may have thousands of versions."""
    if is_version(ref):
        return session.get(VersionRow, (name, int(ref)))
    alias = session.get(AliasRow, (name, ref))
    return None if alias is None else session.get(VersionRow, (name, alias.number))


def newest_versions(session: Session, bases: Collection[str] | None) -> list[VersionRow]:
    """The newest version of each adapter, sorted by name. `bases`: only versions admitted for one of them."""
    last = select(VersionRow.name, func.max(VersionRow.number)).group_by(VersionRow.name)
    if bases is not None:
        last = last.where(VersionRow.bases.any(VersionBaseRow.fingerprint.in_(bases)))
    rows = select(VersionRow).where(tuple_(VersionRow.name, VersionRow.number).in_(last))
    return sorted(session.scalars(rows), key=lambda row: row.name)


def all_versions(session: Session) -> list[VersionRow]:
    """All versions, sorted by name. The newest version of a name comes first."""
    return sorted(session.scalars(select(VersionRow)), key=lambda row: (row.name, -row.number))


def adapter_names(session: Session) -> list[str]:
    """The names of adapters that have a version, sorted."""
    return sorted(session.scalars(select(VersionRow.name).distinct()))


def count_adapters(session: Session) -> int:
    """The number of adapters that have a version."""
    return session.scalar(select(func.count(VersionRow.name.distinct()))) or 0


def find_content(session: Session, name: str, digest: str) -> VersionRow | None:
    """The newest version of `name` with the content `digest`."""
    rows = select(VersionRow).filter_by(name=name, digest=digest).order_by(VersionRow.number.desc())
    return session.scalars(rows).first()


def insert_version(session: Session, name: str, content: Content) -> VersionRow:
    """Add a row with the next number. `set_facts` must fill in the facts.

    The number of a removed version is not used again, because the engine may have a cache entry for it."""
    adapter = session.get(AdapterRow, name)
    if adapter is None:
        adapter = AdapterRow(name=name, last_number=0)
        session.add(adapter)
        session.flush()
    adapter.last_number += 1
    row = VersionRow(
        name=name,
        number=adapter.last_number,
        digest=content.digest,
        config_bytes=content.config_bytes,
        weights_bytes=content.weights_bytes,
        created_at=time.time(),
        lineage={},
    )
    session.add(row)
    return row


def set_facts(row: VersionRow, facts: Admitted, source: str, lineage: Mapping[str, Any]) -> None:
    """Store the facts of the latest admission. Keys of the earlier lineage stay unless `lineage` has them."""
    row.rank, row.parameters, row.peak = facts.rank, facts.parameters, facts.peak
    row.coverage, row.warnings = facts.coverage, list(facts.warnings)
    row.source = source
    row.lineage = {**row.lineage, **lineage}


def set_terms(row: VersionRow, terms: Terms, now: float) -> None:
    """Add the base of the latest admission, and replace the expiry. A known base replaces the unknown one."""
    row.ttl_seconds = terms.ttl_seconds
    row.expires_at = None if terms.ttl_seconds is None else now + terms.ttl_seconds
    found = {base.fingerprint: base for base in row.bases}
    if terms.base.fingerprint in found:
        found[terms.base.fingerprint].base_name = terms.base.name
    elif terms.base.fingerprint != UNKNOWN_BASE or not found:
        known = [base for base in row.bases if base.fingerprint != UNKNOWN_BASE]
        row.bases = [*known, VersionBaseRow(fingerprint=terms.base.fingerprint, base_name=terms.base.name)]


def damaged(version: Version) -> StorageUnavailable:
    """The error for a version whose files do not match its row."""
    return StorageUnavailable(
        Code.ADAPTER_FILES_MISSING,
        f"The files of {version.id} are missing or damaged. Register the adapter again.",
    )


def as_version(row: VersionRow, store: Store) -> Version:
    return Version(
        name=row.name,
        number=row.number,
        content=row.content,
        directory=store.path(row.digest),
        rank=row.rank,
        parameters=row.parameters,
        peak=row.peak,
        coverage=row.coverage,
        warnings=tuple(row.warnings),
        source=row.source,
        lineage=row.lineage,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        bases=tuple(Base(base.fingerprint, base.base_name) for base in row.bases),
        expires_at=None if row.expires_at is None else datetime.fromtimestamp(row.expires_at, UTC),
    )


def aliases_of(session: Session, name: str) -> dict[str, int]:
    """Alias to version number, sorted by alias. Raises NotFound("model_not_found")."""
    versions_of(session, name)
    rows = session.scalars(select(AliasRow).filter_by(name=name))
    return {row.alias: row.number for row in sorted(rows, key=lambda row: row.alias)}


def aliases_by_version(session: Session) -> Mapping[tuple[str, int], list[str]]:
    """The sorted aliases of each version (name, number). Versions without aliases have an empty list."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for row in session.scalars(select(AliasRow).order_by(AliasRow.alias)):
        found[row.name, row.number].append(row.alias)
    return found


def point_alias(session: Session, name: str, alias: str, ref: str | None) -> VersionRow:
    """Make `name@alias` point at the version that `ref` names now. Raises InvalidRequest("invalid_name")."""
    check_alias(alias)
    version = find_version(session, name, ref)
    session.merge(AliasRow(name=name, alias=alias, number=version.number))
    return version


def drop_alias(session: Session, name: str, alias: str) -> None:
    row = session.get(AliasRow, (name, alias))
    if row is None:
        raise NotFound(Code.ALIAS_NOT_FOUND, f"The adapter {name!r} has no alias {alias!r}.", "alias")
    session.delete(row)
