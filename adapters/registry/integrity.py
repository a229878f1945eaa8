"""Whether the registry's rows, aliases, compositions and files agree. For tests and for people in doubt."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.registry.database import (
    AdapterRow,
    AliasRow,
    CompositionRow,
    DerivedRow,
    VersionRow,
)
from lora_compose.adapters.registry.store import Store
from lora_compose.adapters.registry.versions import find


def check_rows(session: Session, store: Store) -> None:
    """AssertionError naming what is off: a number above its adapter's last, missing files, a name with two
    meanings. NotFound where an alias or a saved composition leads nowhere."""
    last = {row.name: row.last_number for row in session.scalars(select(AdapterRow))}
    names = set()
    for version in session.scalars(select(VersionRow)):
        names.add(version.name)
        assert 1 <= version.number <= last[version.name], (
            f"{version.name}@{version.number} was never given out"
        )
        assert store.holds(version.content), (
            f"the files of {version.name}@{version.number} are missing or cut"
        )
    for alias in session.scalars(select(AliasRow)):
        assert find(session, alias.name, alias.alias).number == alias.number
    for saved in session.scalars(select(CompositionRow)):
        assert saved.name not in names, f"{saved.name} is an adapter and a composition"
        for member in parse(saved.text).members:
            find(session, member.name, member.ref)
    for merge in session.scalars(select(DerivedRow)):
        assert store.holds(merge.content), f"the files of the merge {merge.key} are missing or cut"
