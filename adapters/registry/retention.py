"""Removes versions that expired, and versions that newer ones of the same name supersede.

A version that something needs stays: an alias or saved composition that names it, a pin, the fused
composition, or a version whose lineage names it in `parents`. It goes when nothing needs it any more.
Times are seconds since 1970. While a process runs, they follow a monotonic clock, so a change of the system's
clock makes nothing expire early or late.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import String, cast, delete, func, select, update
from sqlalchemy.orm import Session

from lora_compose.adapters.composition.grammar import parse, parse_reference
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.database import (
    AliasRow,
    Database,
    FusedRow,
    PinRow,
    RetiredRow,
    VersionBaseRow,
    VersionRow,
)
from lora_compose.adapters.registry.saved_compositions import all_compositions
from lora_compose.adapters.registry.store import Store, Version
from lora_compose.adapters.registry.versions import as_version

logger = logging.getLogger(__name__)

REMEMBERED = 1000
"""For each name, the number of removed versions whose reason is remembered."""

Key = tuple[str, int]
"""Name and number of a version."""


@dataclass(frozen=True)
class Retired:
    """A version that was removed. `reason` is a key of `versions.REASONS`."""

    version: Version
    reason: str


Clock = Callable[[], float]


def steady_clock() -> Clock:
    """A clock that starts at the system's time and then counts seconds."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Retention:
    """Expiry and supersession in one database."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self.clock = clock

    def next_expiry(self) -> float | None:
        """The time at which the next version expires, None if none does."""
        with self._database.reading() as session:
            return session.scalar(select(func.min(VersionRow.expires_at)))

    def limit_to_ttl(self) -> None:
        """Let no version live longer than its ttl_seconds from now. The clock may have been set back."""
        latest = VersionRow.ttl_seconds + self.clock()
        with self._database.writing() as session:
            late = update(VersionRow).where(VersionRow.expires_at > latest)
            session.execute(late.values(expires_at=latest))

    def replaced_by(self, version: Version, base: str) -> Version | None:
        """The version of the same name that was the newest for `base` before `version`."""
        is_for_base = VersionRow.bases.any(VersionBaseRow.fingerprint == base)
        rows = select(VersionRow).filter_by(name=version.name).where(is_for_base)
        earlier = rows.where(VersionRow.number < version.number).order_by(VersionRow.number.desc())
        with self._database.reading() as session:
            row = session.scalars(earlier.limit(1)).first()
            return None if row is None else as_version(row, self._store)

    def retire(
        self,
        keep: int | None,
        base: str,
        spare: Collection[str] = (),
        replaced: Version | None = None,
    ) -> list[Retired]:
        """Remove the versions that expired, and for each name all but the newest `keep` admitted for `base`.

        `replaced` is removed too. Versions that something needs and the ids in `spare` stay. The files
        stay until `Registry.sweep`."""
        now = self.clock()
        with self._database.writing() as session:
            wanted = _expired(session, now)
            for row in _superseded(session, keep, base) if keep is not None else ():
                wanted.setdefault(row, "superseded")
            found = replaced and session.get(VersionRow, (replaced.name, replaced.number))
            if found:
                wanted.setdefault(found, "replaced")
            if wanted:
                needed = _needed(session)
                wanted = {
                    row: reason
                    for row, reason in wanted.items()
                    if (row.name, row.number) not in needed and f"{row.name}@{row.number}" not in spare
                }
            retired = [Retired(as_version(row, self._store), reason) for row, reason in wanted.items()]
            for row, reason in wanted.items():
                session.merge(RetiredRow(name=row.name, number=row.number, reason=reason, retired_at=now))
                session.delete(row)
            for name in {row.name for row in wanted}:
                _forget_old(session, name)
        for one in retired:
            logger.info("removed %s: %s", one.version.id, one.reason)
        return retired


def _expired(session: Session, now: float) -> dict[VersionRow, str]:
    return dict.fromkeys(session.scalars(select(VersionRow).where(VersionRow.expires_at <= now)), "expired")


def _superseded(session: Session, keep: int, base: str) -> Iterable[VersionRow]:
    """The versions that are not among the newest `keep` of their name. Other bases' versions do not count."""
    of_base = select(VersionBaseRow.name).where(VersionBaseRow.fingerprint == base)
    names = of_base.group_by(VersionBaseRow.name).having(func.count() > keep)
    for name in session.scalars(names):
        is_for_base = VersionRow.bases.any(VersionBaseRow.fingerprint == base)
        rows = select(VersionRow).filter_by(name=name).where(is_for_base)
        yield from session.scalars(rows.order_by(VersionRow.number.desc()).offset(keep))


def _needed(session: Session) -> set[Key]:
    """The versions that may not be removed."""
    needed = {(row.name, row.number) for row in session.scalars(select(AliasRow))}
    needed |= {(row.name, row.number) for row in session.scalars(select(PinRow))}
    compositions = [*all_compositions(session).values(), *map(parse, session.scalars(select(FusedRow.model)))]
    for member in (member for composition in compositions for member in composition.members):
        if member.ref is None:
            needed |= _newest(session, member.name)
        elif member.ref.isdigit():
            needed.add((member.name, int(member.ref)))
    return needed | _parents(session)


def _newest(session: Session, name: str) -> set[Key]:
    """The newest version of a name, and the newest for each base."""
    newest = select(func.max(VersionBaseRow.number)).filter_by(name=name)
    numbers = {*session.scalars(newest), *session.scalars(newest.group_by(VersionBaseRow.fingerprint))}
    return {(name, number) for number in numbers if number is not None}


def _parents(session: Session) -> set[Key]:
    """The versions that the lineage of another version names, as in `{"parents": ["sql@3"]}`."""
    found = set()
    # Few versions have parents, so the database selects them by the text of their lineage.
    rows = select(VersionRow).where(cast(VersionRow.lineage, String).contains('"parents"'))
    for row in session.scalars(rows):
        named = row.lineage.get("training", {}).get("parents")
        for text in named if isinstance(named, list) else ():
            try:
                name, ref = parse_reference(str(text), None)
            except LoraComposeError:
                continue
            if ref is not None and ref.isdigit() and (name, int(ref)) != (row.name, row.number):
                found.add((name, int(ref)))
    return found


def _forget_old(session: Session, name: str) -> None:
    numbers = select(RetiredRow.number).filter_by(name=name).order_by(RetiredRow.number.desc())
    last = session.scalars(numbers.offset(REMEMBERED).limit(1)).first()
    if last is not None:
        session.execute(delete(RetiredRow).where(RetiredRow.name == name, RetiredRow.number <= last))
