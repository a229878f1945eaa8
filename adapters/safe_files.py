"""Opens a regular file and nothing else: a FIFO, device, socket, folder or symlink is refused at once.

The descriptor is checked after it is opened: what was checked is what is read, whatever the name does.

Opens a directory below a root without following any link on the way, so that nobody can swap one in.

A path that was resolved and found inside says where it was then; what is opened through the descriptor is
inside for as long as it is open.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lora_compose.adapters.errors import AdapterRejected, Code

# O_NONBLOCK: opening a FIFO that nobody writes to must not wait.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What open(2) says of a symlink, and of a socket or a device without a driver.
_IRREGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})


def open_regular(path: Path, missing: Code, directory: int | None = None) -> BinaryIO:
    """Open `path` for reading bytes; with the descriptor `directory`, the file of its name in there.

    Raises AdapterRejected `not_a_regular_file`, or one with the code `missing` where there is no such file;
    any other OSError (permissions, a failing disk) is left to the caller.
    """
    try:
        descriptor = os.open(path if directory is None else path.name, _FLAGS, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AdapterRejected(missing, f"The adapter has no file {path.name}; add it.", path.name) from error
    except OSError as error:
        if error.errno in _IRREGULAR:
            raise _irregular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return os.fdopen(descriptor, "rb")


def _irregular(path: Path) -> AdapterRejected:
    message = f"{path.name} must be a regular file, not a link, directory, pipe, socket or device."
    return AdapterRejected(Code.NOT_A_REGULAR_FILE, message, path.name)


_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def confined_directory(root: Path, directory: Path) -> Iterator[int]:
    """A descriptor of `directory`, which must be below `root`; both are resolved already.

    Raises OSError: FileNotFoundError where it has gone, ELOOP or NotADirectoryError where a link is in its
    place."""
    descriptor = os.open(root, _DIRECTORY_FLAGS)
    try:
        for part in directory.relative_to(root).parts:
            outer, descriptor = descriptor, os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
            os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)
