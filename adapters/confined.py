"""Opens a directory below a root without following any link on the way, so that nobody can swap one in.

A path that was resolved and found inside says where it was then; what is opened through the descriptor is
inside for as long as it is open.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def confined_directory(root: Path, directory: Path) -> Iterator[int]:
    """A descriptor of `directory`, which must be below `root`; both are resolved already.

    Raises OSError: FileNotFoundError where it has gone, ELOOP or NotADirectoryError where a link is in its
    place."""
    descriptor = os.open(root, _FLAGS)
    try:
        for part in directory.relative_to(root).parts:
            outer, descriptor = descriptor, os.open(part, _FLAGS, dir_fd=descriptor)
            os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)
