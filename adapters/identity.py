"""Which database describes which data directory, so that neither is ever read beside a stranger.

Files that no row names are deleted when a registry opens: with the wrong database URL, all of them. So both
sides hold one random id, and a pair that does not match is refused.
"""

import os
import uuid
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.errors import Conflict
from adapters.store import sync_directory
from adapters.tables import IdentityRow

ID_FILE = "registry-id"


def pair(session: Session, data_dir: Path, empty: bool) -> None:
    """Introduce a new database and a new directory to each other, or raise Conflict("wrong_database").

    `empty` says that the directory's store holds nothing yet that a sweep could lose."""
    file = data_dir / ID_FILE
    on_disk = file.read_text() or None if file.exists() else None
    in_rows = session.scalars(select(IdentityRow.id)).first()
    if on_disk == in_rows and on_disk is not None:
        return
    if in_rows or not empty:
        raise Conflict(
            "wrong_database",
            "The data directory and the database belong to different registries. Give the database this "
            "directory was made with, or a new data directory.",
        )
    # The file is durable before the row commits: killed between the two, the next start comes here again.
    identity = on_disk or uuid.uuid4().hex
    session.add(IdentityRow(id=identity))
    with file.open("w") as opened:
        opened.write(identity)
        opened.flush()
        os.fsync(opened.fileno())
    sync_directory(data_dir)
