"""Ties a database to its data directory by a shared random id, and locks the directory for one process.

When a registry opens, it deletes the files that no row of the database names. With a wrong database URL these
would be the files of another registry. So both sides store one id, and a pair that does not match is refused.

One process at a time owns a data directory. It holds a file lock, which the system releases when it dies.
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
    """Check that the database and the directory have the same id, or give one to a new pair.

    Raises Conflict("wrong_database"). `empty`: the store in the directory has no files that could be lost."""
    file = data_dir / ID_FILE
    on_disk = file.read_text() or None if file.exists() else None
    in_rows = session.scalars(select(IdentityRow.id)).first()
    if on_disk == in_rows and on_disk is not None:
        return
    if in_rows or not empty:
        raise Conflict(
            CommandCode.WRONG_DATABASE,
            "The data directory and the database belong to different registries. Use the database that was "
            "made with this data directory, or a new data directory.",
        )
    # The file is durable before the row is committed. If killed between the two, the next start repeats this.
    identity = on_disk or uuid.uuid4().hex
    session.add(IdentityRow(id=identity))
    with file.open("w") as opened:
        opened.write(identity)
        opened.flush()
        os.fsync(opened.fileno())
    sync_directory(data_dir)


def directory_lock(data_dir: Path) -> FileLock:
    """The lock of the directory, not acquired yet. Any thread may release it."""
    return FileLock(data_dir / "lock", thread_local=False)


def acquire(lock: FileLock) -> None:
    """Acquire the lock without waiting, or raise Conflict("data_dir_in_use")."""
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise Conflict(CommandCode.DATA_DIR_IN_USE, "Another process uses this data directory.") from error
