"""The registry's tables. Only portable column types: which database it is, is a setting.

Times are seconds since 1970 (UTC), since SQLite has no time zones. Names sort and compare by byte.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from adapters.store import Content


class Table(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, float: Double}  # noqa: RUF012


class IdentityRow(Table):
    """One row: which data directory these rows describe."""

    __tablename__ = "identity"
    id: Mapped[str] = mapped_column(primary_key=True)


class AdapterRow(Table):
    """A name that was registered once. It outlives its versions, for their numbers are never given again."""

    __tablename__ = "adapters"
    name: Mapped[str] = mapped_column(primary_key=True)
    last_number: Mapped[int]


class StoredContent:
    """The columns of a row that stands for two files in the store."""

    digest: Mapped[str] = mapped_column(index=True)
    config_bytes: Mapped[int] = mapped_column(BigInteger)
    weights_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]

    @property
    def content(self) -> Content:
        return Content(self.digest, self.config_bytes, self.weights_bytes)


class VersionRow(StoredContent, Table):
    __tablename__ = "versions"
    name: Mapped[str] = mapped_column(ForeignKey("adapters.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int]
    parameters: Mapped[int] = mapped_column(BigInteger)
    peak: Mapped[float]
    coverage: Mapped[dict[str, Any]]
    warnings: Mapped[list[str]]
    source: Mapped[str]
    lineage: Mapped[dict[str, Any]]


class AliasRow(Table):
    """`name@alias` points at `name@number`, and goes when that version goes."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


class CompositionRow(Table):
    """A saved composition, as its canonical text with the references as they were written."""

    __tablename__ = "compositions"
    name: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    created_at: Mapped[float]


class DerivedRow(StoredContent, Table):
    """A merge, cached under what it is made of."""

    __tablename__ = "derived"
    key: Mapped[str] = mapped_column(primary_key=True)
    report: Mapped[dict[str, Any]]


class DerivedMemberRow(Table):
    """One of the contents a merge was made from."""

    __tablename__ = "derived_members"
    key: Mapped[str] = mapped_column(ForeignKey("derived.key", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)
