"""Opens files and directories safely when another process may change what their paths name.

`open_regular` opens a regular file. It refuses a FIFO, device, socket, directory or symlink at once. It
checks the descriptor after opening it, so the file that was checked is the file that is read.

`confined_directory` opens a directory below a root without following links. A resolved path only shows that
the directory was below the root at that moment. Files opened through the descriptor stay below the root.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lora_compose.adapters.errors import AdapterRejected, Code

# O_NONBLOCK: opening a FIFO without a writer must not wait.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The errors of open(2) for a symlink, and for a socket or a device without a driver.
_IRREGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})


def open_regular(path: Path, missing: Code, directory: int | None = None) -> BinaryIO:
    """Open `path` for reading bytes. With `directory`, a descriptor, open the file `path.name` in it.

    Raises AdapterRejected `not_a_regular_file`, or one with the code `missing` if the file does not exist.
    Any other OSError (permissions, a failing disk) is raised unchanged.
    """
    try:
        descriptor = os.open(path if directory is None else path.name, _FLAGS, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AdapterRejected(missing, f"The adapter has no file {path.name}. Add it.", path.name) from error
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
    """A descriptor of `directory`, which must be below `root`. Both paths must be resolved already.

    Raises OSError: FileNotFoundError if the directory is gone, ELOOP or NotADirectoryError if a link has
    replaced it."""
    descriptor = os.open(root, _DIRECTORY_FLAGS)
    try:
        for part in directory.relative_to(root).parts:
            outer, descriptor = descriptor, os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
            os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)
