"""The pins and the fused composition that an operator requested. The next start restores them."""

from sqlalchemy import delete, select

from lora_compose.adapters.registry.database import Database, FusedRow, PinRow
from lora_compose.adapters.registry.store import Version


class Kept:
    """The pins and the fused composition in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pin(self, version: Version) -> None:
        """Record a pin. Pinning twice is pinning once."""
        with self._database.writing() as session:
            session.merge(PinRow(name=version.name, number=version.number))

    def unpin(self, version: Version) -> None:
        """Delete the record of a pin, if there is one."""
        with self._database.writing() as session:
            session.execute(delete(PinRow).filter_by(name=version.name, number=version.number))

    def pins(self) -> list[str]:
        """The pinned versions as `name@number`, sorted."""
        with self._database.reading() as session:
            rows = session.scalars(select(PinRow).order_by(PinRow.name, PinRow.number))
            return [f"{row.name}@{row.number}" for row in rows]

    def fuse(self, model: str | None) -> None:
        """Record the canonical text of the fused composition. None: the base is plain."""
        with self._database.writing() as session:
            session.execute(delete(FusedRow))
            if model is not None:
                session.add(FusedRow(model=model))

    def fused(self) -> str | None:
        """The canonical text of the composition that was fused last and not restored."""
        with self._database.reading() as session:
            return session.scalars(select(FusedRow.model)).first()
