"""One process at a time owns a data directory: it holds a file lock, which the system drops when it dies."""

from pathlib import Path

from filelock import FileLock, Timeout

from adapters.errors import Conflict


def lock_of(data_dir: Path) -> FileLock:
    """The directory's lock, not yet taken. Any thread may release it."""
    return FileLock(data_dir / "lock", thread_local=False)


def take(lock: FileLock) -> None:
    """Own the directory from now on, or raise Conflict("data_dir_in_use") at once."""
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise Conflict("data_dir_in_use", "Another process has opened this data directory.") from error
