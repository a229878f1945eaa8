"""Checks that the registry's rows, aliases, compositions and files agree. For tests and for diagnosis."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.registry.database import (
    AdapterRow,
    AliasRow,
    CompositionRow,
    MergeRow,
    VersionRow,
)
from lora_compose.adapters.registry.store import Store
from lora_compose.adapters.registry.versions import find_version


def check_rows(session: Session, store: Store) -> None:
    """Raises AssertionError for a wrong version number, missing files or a name with two meanings.

    Raises NotFound if the target of an alias or the member of a saved composition does not exist."""
    last = {row.name: row.last_number for row in session.scalars(select(AdapterRow))}
    names = set()
    for version in session.scalars(select(VersionRow)):
        names.add(version.name)
        assert 1 <= version.number <= last[version.name], (
            f"{version.name}@{version.number} has a number that was never assigned"
        )
        assert store.holds(version.content), (
            f"the files of {version.name}@{version.number} are missing or have a wrong size"
        )
    for alias in session.scalars(select(AliasRow)):
        assert find_version(session, alias.name, alias.alias).number == alias.number
    for saved in session.scalars(select(CompositionRow)):
        assert saved.name not in names, f"{saved.name} is the name of an adapter and of a composition"
        for member in parse(saved.text).members:
            find_version(session, member.name, member.ref)
    for merge in session.scalars(select(MergeRow)):
        assert store.holds(merge.content), (
            f"the files of the merge {merge.key} are missing or have a wrong size"
        )
