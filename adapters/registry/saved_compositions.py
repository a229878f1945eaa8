"""The rows of saved compositions, within one session. Aliases in them are not resolved, so they may move."""

import time
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, Conflict, NotFound
from lora_compose.adapters.registry.database import CompositionRow, VersionRow
from lora_compose.adapters.registry.versions import find_version, versions_of


def insert_composition(session: Session, name: str, composition: Composition) -> bool:
    """Save a composition. True if it is new. Its members must resolve to different versions.

    A name cannot be saved again with another composition."""
    if session.scalars(select(VersionRow.number).filter_by(name=name).limit(1)).first() is not None:
        raise Conflict(
            Code.NAME_RESERVED, f"{name!r} is the name of an adapter. Choose another name.", "name"
        )
    composition.with_refs({m: find_version(session, m.name, m.ref).number for m in composition.members})
    row = session.get(CompositionRow, name)
    if row is None:
        session.add(CompositionRow(name=name, text=composition.canonical, created_at=time.time()))
    elif row.text != composition.canonical:
        raise Conflict(Code.NAME_TAKEN, f"{name!r} is already saved as {row.text}. Delete it first.", "name")
    return row is None


def all_compositions(session: Session) -> dict[str, Composition]:
    """Every saved composition, by name."""
    rows = session.scalars(select(CompositionRow))
    return {row.name: parse(row.text) for row in sorted(rows, key=lambda row: row.name)}


def get_composition(session: Session, name: str) -> CompositionRow:
    row = session.get(CompositionRow, name)
    if row is None:
        raise no_composition(name)
    return row


def refuse_use_of_name(session: Session, name: str) -> None:
    """Raises Conflict("name_reserved") if `name` is the name of a saved composition."""
    if session.get(CompositionRow, name) is not None:
        raise Conflict(
            Code.NAME_RESERVED, f"{name!r} is the name of a saved composition. Choose another name.", "name"
        )


def depending_on_versions(session: Session, versions: Collection[VersionRow]) -> list[str]:
    """Names of the compositions that would not resolve without `versions`, which are of one adapter.

    A member without a version or alias resolves as long as any version is left."""
    name = next(iter(versions)).name
    last = len(versions) == len(versions_of(session, name))
    needing = []
    for saved, composition in all_compositions(session).items():
        refs = [member.ref for member in composition.members if member.name == name]
        if any(last if ref is None else find_version(session, name, ref) in versions for ref in refs):
            needing.append(saved)
    return needing


def depending_on_alias(session: Session, name: str, alias: str) -> list[str]:
    """Names of the compositions that have the member `name@alias`."""
    return [
        saved
        for saved, composition in all_compositions(session).items()
        if any((member.name, member.ref) == (name, alias) for member in composition.members)
    ]


def refuse_if_needed(needing: list[str], what: str) -> None:
    """Raises Conflict("in_use") with the first name in `needing`, unless `needing` is empty."""
    if needing:
        raise Conflict(Code.IN_USE, f"The saved composition {needing[0]!r} needs {what}.", "name")


def no_composition(name: str) -> NotFound:
    """The error for a name that is not a saved composition."""
    return NotFound(Code.COMPOSITION_NOT_FOUND, f"There is no saved composition {name!r:.200}.", "name")
