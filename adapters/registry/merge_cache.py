"""The rows of cached merges: the content for each key, and the contents it was made from. Within one session.

A merge is removed with any of its members. It can be built again, so a damaged one is just removed.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lora_compose.adapters.registry.database import MergeMemberRow, MergeRow, VersionRow
from lora_compose.adapters.registry.store import Content


def insert_merge(
    session: Session, key: str, content: Content, report: Mapping[str, Any], members: Iterable[str]
) -> None:
    """Store `content` as the merge of `key`, replacing an older one. `members` are their digests."""
    session.execute(delete(MergeRow).filter_by(key=key))
    session.add(
        MergeRow(
            key=key,
            digest=content.digest,
            config_bytes=content.config_bytes,
            weights_bytes=content.weights_bytes,
            created_at=time.time(),
            report=dict(report),
        )
    )
    session.flush()
    session.add_all(MergeMemberRow(key=key, digest=digest) for digest in set(members))


def delete_without_members(session: Session, keep: Collection[str]) -> None:
    """Delete each merge with a member that is neither the content of a version nor a digest in `keep`."""
    wanted = {*session.scalars(select(VersionRow.digest)), *keep}
    rows = session.execute(select(MergeMemberRow.key, MergeMemberRow.digest))
    for key in {key for key, digest in rows if digest not in wanted}:
        session.execute(delete(MergeRow).filter_by(key=key))


def referenced_digests(session: Session) -> set[str]:
    """The digests of the contents of all versions and merges."""
    return {*session.scalars(select(VersionRow.digest)), *session.scalars(select(MergeRow.digest))}
