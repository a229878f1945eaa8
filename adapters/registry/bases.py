"""The bases of a registry: which versions were admitted for which, and which one was served last.

A version may be admitted for several bases. A base is known by the fingerprint of its weights; its name is
the one under which it was served.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, select, update

from lora_compose.adapters.names import MIN_FINGERPRINT_DIGITS
from lora_compose.adapters.registry.database import Database, ServedBaseRow, VersionBaseRow, VersionRow
from lora_compose.adapters.registry.store import UNKNOWN_BASE, Base


class Bases:
    """The bases in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> dict[Base, int]:
        """The number of versions of each base, sorted by name. A base with several names is there once."""
        rows = select(VersionBaseRow.fingerprint, func.max(VersionBaseRow.base_name), func.count()).group_by(
            VersionBaseRow.fingerprint
        )
        with self._database.reading() as session:
            found = {Base(digest, name): count for digest, name, count in session.execute(rows)}
        return dict(sorted(found.items(), key=lambda item: (item[0].name, item[0].fingerprint)))

    def count_others(self, fingerprints: Collection[str]) -> int:
        """The number of versions that were admitted for none of these bases."""
        admitted = VersionRow.bases.any(VersionBaseRow.fingerprint.in_(fingerprints))
        with self._database.reading() as session:
            return session.scalar(select(func.count()).select_from(VersionRow).where(~admitted)) or 0

    def selected(self, texts: Sequence[str]) -> dict[str, set[str]]:
        """For each text of --accept-base, the fingerprints of the bases that it selects."""
        with self._database.reading() as session:
            rows = select(VersionBaseRow.fingerprint, VersionBaseRow.base_name).distinct()
            known = [Base(*row) for row in session.execute(rows)]
        return {text: {base.fingerprint for base in known if selects(text, base)} for text in texts}

    def serve(self, base: Base, older: Collection[str] = ()) -> None:
        """Record that a server serves `base`. Rows with an `older` fingerprint of it get its fingerprint."""
        with self._database.writing() as session:
            for fingerprint in older:
                session.execute(
                    update(VersionBaseRow)
                    .where(VersionBaseRow.fingerprint == fingerprint)
                    .values(fingerprint=base.fingerprint, base_name=base.name)
                )
            session.execute(delete(ServedBaseRow))
            session.add(ServedBaseRow(fingerprint=base.fingerprint, base_name=base.name))

    def served(self) -> Base | None:
        """The base that a server of this registry served last."""
        with self._database.reading() as session:
            row = session.scalars(select(ServedBaseRow)).first()
            return None if row is None else Base(row.fingerprint, row.base_name)


def selects(text: str, base: Base) -> bool:
    """Whether `text` is the base's name, the last part of it, or the first digits of its fingerprint.

    The text "unknown" selects the base of versions that were registered without one."""
    names = {base.name, base.name.rstrip("/").rpartition("/")[2]}
    is_prefix = len(text) >= MIN_FINGERPRINT_DIGITS and base.fingerprint.startswith(text.lower())
    return text == base.fingerprint or (base.fingerprint != UNKNOWN_BASE and text in names) or is_prefix
