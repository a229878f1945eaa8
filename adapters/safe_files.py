"""Opens files and directories safely when another process may change what their paths name.

`open_regular` opens a regular file. It refuses a FIFO, device, socket or directory at once. It checks the
descriptor after opening it, so the file that was checked is the file that is read.

`confined_directory` opens a directory whose path comes from a client. The path, and the links on it, are
followed one component after another on descriptors, and the kernel follows no link itself. The end must lie
below one of the given roots at the moment when it is opened. What is exchanged for a link before or after
that moment changes only which file inside the roots is opened. The files of the directory are opened by the
same rule, so a link may lead to a file elsewhere below any root, as in the cache of the Hugging Face Hub and
in Kubernetes volumes.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lora_compose.adapters.errors import AdapterRejected, Code

# O_NONBLOCK: opening a FIFO without a writer must not wait.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# O_PATH: a device is not opened by looking at it, and a directory needs no read permission.
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# The errors of open(2) for a loop of links, and for a socket or a device without a driver.
_IRREGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
_MISSING = (FileNotFoundError, NotADirectoryError)
MAX_LINKS = 40
"""The most links in one path, as in the kernel."""
MAX_STEPS = 256
"""The most components in one path with its links. Each holds a descriptor."""


class OutsideRoots(Exception):
    """A path leads out of every root. It does not say whether something exists there."""


def open_regular(path: Path, missing: Code) -> BinaryIO:
    """Open `path`, which the user of this process chose, for reading bytes. A link is followed.

    Raises AdapterRejected `not_a_regular_file`, or one with the code `missing` if the file does not exist.
    Any other OSError (permissions, a failing disk) is raised unchanged.
    """
    try:
        descriptor = os.open(path, _READ)
    except _MISSING as error:
        raise _missing(path.name, missing, linked=path.is_symlink()) from error
    except OSError as error:
        if error.errno in _IRREGULAR:
            raise _irregular(path.name) from error
        raise
    return _regular(descriptor, path.name)


def _regular(descriptor: int, name: str) -> BinaryIO:
    """The open file as an object. Closes it and raises AdapterRejected if it is not a regular file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(name)
    return os.fdopen(descriptor, "rb")


def _missing(name: str, code: Code, *, linked: bool) -> AdapterRejected:
    if linked:
        message = f"{name} is a link to a file that does not exist. Fetch the file, or copy the file itself."
    else:
        message = f"The adapter has no file {name}. Add it."
    return AdapterRejected(code, message, name)


def _irregular(name: str) -> AdapterRejected:
    message = (
        f"{name} must be a regular file or a link to one, not a directory, pipe, socket, device or loop of "
        "links."
    )
    return AdapterRejected(Code.NOT_A_REGULAR_FILE, message, name)


@dataclass(frozen=True)
class _Directory:
    """An open directory (O_PATH), and whether it is a root or lies below one."""

    descriptor: int
    inside: bool


@dataclass(frozen=True)
class _Place:
    """What a path names: a directory, or another kind of file in one. `way` goes from "/" to the directory.

    `name` is the file in the last directory of `way`; None: the directory itself."""

    way: tuple[_Directory, ...]
    name: str | None = None
    links: Mapping[tuple[int, int, str], str] = field(default_factory=dict)
    """Each link that was followed, as device and inode of its directory and its name, and where it led."""


class _Walk:
    """Follows paths by their components. The descriptors that it opens belong to the `end` of each call."""

    def __init__(self, roots: Sequence[Path], end: ExitStack) -> None:
        self._roots = []
        for root in roots:
            with suppress(OSError):  # a root that was deleted has nothing in it
                self._roots.append(os.fstat(_open(str(root), os.O_PATH | os.O_CLOEXEC, None, end)))
        self._top = self._directory(_open("/", _LOOK, None, end), inside=False)

    def from_top(self, path: str, end: ExitStack) -> _Place:
        """The place of an absolute path. Raises the errors of `follow`."""
        return self.follow((self._top,), path, end)

    def follow(self, way: tuple[_Directory, ...], path: str, end: ExitStack) -> _Place:
        """The place of `path` relative to the last directory of `way`.

        Raises OutsideRoots if it leaves every root, whether it exists or not. Raises OSError for a place
        inside: ELOOP for a loop of links, ENOENT, ENOTDIR, EACCES and so on."""
        pending, followed = _parts(path), 0
        links: dict[tuple[int, int, str], str] = {}
        for _ in range(MAX_STEPS):
            if not pending:
                return _inside(_Place(way, None, links))
            name = pending.pop()
            if name == "..":
                way = way[:-1] or way
                continue
            with _said_only(inside=way[-1].inside):
                descriptor = _open(name, _LOOK, way[-1].descriptor, end)
                found = os.fstat(descriptor)
                if stat.S_ISDIR(found.st_mode):
                    way = (*way, self._directory(descriptor, way[-1].inside))
                    continue
                if stat.S_ISLNK(found.st_mode):
                    followed += 1
                    target = os.readlink("", dir_fd=descriptor)
                    holder = os.fstat(way[-1].descriptor)
                    links[holder.st_dev, holder.st_ino, name] = target
                    way = (self._top,) if target.startswith("/") else way
                    pending += _parts(target)
                elif pending:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                else:
                    return _inside(_Place(way, name, links))
                if followed > MAX_LINKS:
                    break
        with _said_only(inside=way[-1].inside):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _directory(self, descriptor: int, inside: bool) -> _Directory:
        found = os.fstat(descriptor)
        return _Directory(descriptor, inside or any(os.path.samestat(found, root) for root in self._roots))


def _open(name: str, flags: int, directory: int | None, end: ExitStack) -> int:
    descriptor = os.open(name, flags, dir_fd=directory)
    end.callback(os.close, descriptor)
    return descriptor


def _inside(place: _Place) -> _Place:
    if not place.way[-1].inside:
        raise OutsideRoots
    return place


def _parts(path: str) -> list[str]:
    """The components of `path`, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


@contextmanager
def _said_only(*, inside: bool) -> Iterator[None]:
    """Raise OutsideRoots in place of an OSError that happens outside every root."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in a name
        if inside and isinstance(error, OSError):
            raise
        raise OutsideRoots from error


MAX_ENTRIES = 10_000
"""The most names of a directory that are read."""


@dataclass(frozen=True)
class ConfinedDirectory:
    """An open directory below a root. Everything opened through it is below a root as well."""

    _walk: _Walk
    _way: tuple[_Directory, ...]

    def names(self) -> list[str]:
        """The names in the directory, sorted, at most MAX_ENTRIES. Raises OSError."""
        with ExitStack() as end:
            listed = _open(".", _LIST, self._way[-1].descriptor, end)
            entries = end.enter_context(os.scandir(listed))
            return sorted(entry.name for entry in itertools.islice(entries, MAX_ENTRIES))

    @contextmanager
    def inner(self, name: str) -> Iterator["ConfinedDirectory"]:
        """Open the directory `name` in it, or the directory that it is a link to.

        Raises the errors of `confined_directory`."""
        with ExitStack() as end:
            yield _opened(self._walk, self._walk.follow(self._way, name, end))

    def open_regular(self, name: str, missing: Code) -> BinaryIO:
        """Open the file `name` of the directory for reading bytes, or the file that it is a link to.

        `name` may have several components. Raises OutsideRoots, the errors of `open_regular` in this module,
        and OSError."""
        return self._open(name, missing)[0]

    @contextmanager
    def opened_together(self, names: Mapping[str, Code]) -> Iterator[list[BinaryIO]]:
        """Open several files by `open_regular`, all of one state of the directory.

        A Kubernetes volume is updated by exchanging one link, so one file could be of the old state and
        another of the new one. Here, a link on the way to several files led to the same place each time.
        Raises OSError EAGAIN if the links are exchanged too often."""
        for _ in range(MAX_LINKS):
            with ExitStack() as end:
                links: dict[tuple[int, int, str], str] = {}
                files, same = [], True
                for name, missing in names.items():
                    file, followed = self._open(name, missing)
                    files.append(end.enter_context(file))
                    same = same and all(
                        links.get(link, target) == target for link, target in followed.items()
                    )
                    links |= followed
                if same:
                    yield files
                    return
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _open(self, name: str, missing: Code) -> tuple[BinaryIO, Mapping[tuple[int, int, str], str]]:
        """The open file, and the links that were followed."""
        for _ in range(MAX_LINKS):
            try:
                with ExitStack() as end:
                    place = self._walk.follow(self._way, name, end)
                    descriptor = _read_only(place, name)
            except _MISSING as error:
                raise _missing(name, missing, linked=self._is_link(name)) from error
            except OSError as error:
                if error.errno in _IRREGULAR:
                    raise _irregular(name) from error
                raise
            if descriptor is not None:
                return _regular(descriptor, name), place.links
        raise _irregular(name)  # it was exchanged each time

    def _is_link(self, name: str) -> bool:
        try:
            found = os.stat(name, dir_fd=self._way[-1].descriptor, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISLNK(found.st_mode)


def _read_only(place: _Place, name: str) -> int | None:
    """A descriptor for reading the file. None if the file was exchanged for a link."""
    directory = place.way[-1].descriptor
    if place.name is None:
        raise _irregular(name)
    if not stat.S_ISREG(os.stat(place.name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise _irregular(name)
    try:
        return os.open(place.name, _READ | os.O_NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _opened(walk: _Walk, place: _Place) -> ConfinedDirectory:
    if place.name is not None:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place.name)
    return ConfinedDirectory(walk, place.way)


@contextmanager
def confined_directory(roots: Sequence[Path], path: str) -> Iterator[ConfinedDirectory]:
    """Open the directory `path`, which must be a root or lie below one. Roots may be links themselves.

    Raises OutsideRoots, and OSError for a path inside: FileNotFoundError if it does not exist,
    NotADirectoryError if it is a file, ELOOP if it has a loop of links.
    """
    with ExitStack() as end:
        walk = _Walk(roots, end)
        yield _opened(walk, walk.from_top(str(Path.cwd() / path), end))
