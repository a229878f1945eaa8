"""Which database describes which data directory, so that neither is ever read beside a stranger.

Files that no row names are deleted when a registry opens: with the wrong database URL, all of them. So both
sides hold one random id, and a pair that does not match is refused.

One process at a time owns a data directory: it holds a file lock, which the system drops when it dies.
"""

import os
import uuid
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_compose.adapters.errors import CommandCode, Conflict
from lora_compose.adapters.registry.database import IdentityRow
from lora_compose.adapters.registry.store import sync_directory

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
            CommandCode.WRONG_DATABASE,
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


def lock_of(data_dir: Path) -> FileLock:
    """The directory's lock, not yet taken. Any thread may release it."""
    return FileLock(data_dir / "lock", thread_local=False)


def take(lock: FileLock) -> None:
    """Own the directory from now on, or raise Conflict("data_dir_in_use") at once."""
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise Conflict(
            CommandCode.DATA_DIR_IN_USE, "Another process has opened this data directory."
        ) from error
