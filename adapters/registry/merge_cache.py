"""The cache of merges, within one session: which content answers which key, and what it was made from.

A merge lives as long as its members do. It can always be built again, so a damaged one is just forgotten.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lora_compose.adapters.registry.database import DerivedMemberRow, DerivedRow, VersionRow
from lora_compose.adapters.registry.store import Content


def insert_derived(
    session: Session, key: str, content: Content, report: Mapping[str, Any], members: Iterable[str]
) -> None:
    """Answer `key` with `content` from now on. `members` are the digests it was made from."""
    session.execute(delete(DerivedRow).filter_by(key=key))
    session.add(
        DerivedRow(
            key=key,
            digest=content.digest,
            config_bytes=content.config_bytes,
            weights_bytes=content.weights_bytes,
            created_at=time.time(),
            report=dict(report),
        )
    )
    session.flush()
    session.add_all(DerivedMemberRow(key=key, digest=digest) for digest in set(members))


def forget_without_members(session: Session, keep: Collection[str]) -> None:
    """Forget the merges with a member that is neither a version's content nor among the digests `keep`."""
    wanted = {*session.scalars(select(VersionRow.digest)), *keep}
    rows = session.execute(select(DerivedMemberRow.key, DerivedMemberRow.digest))
    for key in {key for key, digest in rows if digest not in wanted}:
        session.execute(delete(DerivedRow).filter_by(key=key))


def named_digests(session: Session) -> set[str]:
    """The contents that some version or merge is made of."""
    return {*session.scalars(select(VersionRow.digest)), *session.scalars(select(DerivedRow.digest))}
