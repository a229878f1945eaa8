"""Aliases: movable names for versions, within one session. An alias is one row, so moving it is atomic."""

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.errors import NotFound
from adapters.names import check_alias
from adapters.tables import AliasRow, VersionRow
from adapters.version_rows import find, live


def aliases_of(session: Session, name: str) -> dict[str, int]:
    """Alias to version number, by alias."""
    live(session, name)
    rows = session.scalars(select(AliasRow).filter_by(name=name))
    return {row.alias: row.number for row in sorted(rows, key=lambda row: row.alias)}


def aliases_by_version(session: Session) -> Mapping[tuple[str, int], list[str]]:
    """The aliases of each adapter's version (name, number), sorted; an empty list where there is none."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for row in session.scalars(select(AliasRow).order_by(AliasRow.alias)):
        found[row.name, row.number].append(row.alias)
    return found


def point_alias(session: Session, name: str, alias: str, ref: str | None) -> VersionRow:
    """Make or move `name@alias` to what `ref` names now. Raises InvalidRequest("invalid_name")."""
    check_alias(alias)
    version = find(session, name, ref)
    session.merge(AliasRow(name=name, alias=alias, number=version.number))
    return version


def drop_alias(session: Session, name: str, alias: str) -> None:
    row = session.get(AliasRow, (name, alias))
    if row is None:
        raise NotFound("alias_not_found", f"The adapter {name!r} has no alias {alias!r}.", "alias")
    session.delete(row)
