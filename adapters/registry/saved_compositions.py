"""Compositions saved under a name, within one session. References stay as written, so aliases may move."""

import time
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, Conflict, NotFound
from lora_compose.adapters.registry.database import CompositionRow, VersionRow
from lora_compose.adapters.registry.versions import find, live


def insert(session: Session, name: str, composition: Composition) -> bool:
    """Whether it is new. Its members must resolve, to different versions; a name keeps what it was given."""
    if session.scalars(select(VersionRow.number).filter_by(name=name).limit(1)).first() is not None:
        raise Conflict(Code.NAME_RESERVED, f"{name!r} is an adapter.", "name")
    composition.with_refs({m: find(session, m.name, m.ref).number for m in composition.members})
    row = session.get(CompositionRow, name)
    if row is None:
        session.add(CompositionRow(name=name, text=composition.canonical, created_at=time.time()))
    elif row.text != composition.canonical:
        raise Conflict(Code.NAME_TAKEN, f"{name!r} is the composition {row.text}; delete it first.", "name")
    return row is None


def every(session: Session) -> dict[str, Composition]:
    """Every saved composition, by name."""
    rows = session.scalars(select(CompositionRow))
    return {row.name: parse(row.text) for row in sorted(rows, key=lambda row: row.name)}


def get(session: Session, name: str) -> CompositionRow:
    row = session.get(CompositionRow, name)
    if row is None:
        raise no_composition(name)
    return row


def refuse_use_of_name(session: Session, name: str) -> None:
    """Raises Conflict("name_reserved") where `name` is a saved composition's."""
    if session.get(CompositionRow, name) is not None:
        raise Conflict(Code.NAME_RESERVED, f"{name!r} is a saved composition.", "name")


def depending_on_versions(session: Session, doomed: Collection[VersionRow]) -> list[str]:
    """Names of the compositions that would not resolve without the versions `doomed` of one adapter.

    While another version stays, a member without a reference does."""
    name = next(iter(doomed)).name
    last = len(doomed) == len(live(session, name))
    needing = []
    for saved, composition in every(session).items():
        refs = [member.ref for member in composition.members if member.name == name]
        if any(last if ref is None else find(session, name, ref) in doomed for ref in refs):
            needing.append(saved)
    return needing


def depending_on_alias(session: Session, name: str, alias: str) -> list[str]:
    """Names of the compositions with the member `name@alias`."""
    return [
        saved
        for saved, composition in every(session).items()
        if any((member.name, member.ref) == (name, alias) for member in composition.members)
    ]


def refuse_if_needed(needing: list[str], what: str) -> None:
    """Raises Conflict("in_use") naming one of the compositions `needing`, if there are any."""
    if needing:
        raise Conflict(Code.IN_USE, f"The composition {needing[0]!r} needs {what}.", "name")


def no_composition(name: str) -> NotFound:
    """What is said of a name nothing is saved under."""
    return NotFound(Code.COMPOSITION_NOT_FOUND, f"There is no composition {name!r:.200}.", "name")
