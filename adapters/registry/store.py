"""Stores adapter files by content: `store/<digest>/` has the two files of a PEFT adapter. They never change.

New files are written in `tmp/` and renamed into `store/`, so a reader never sees an incomplete adapter. The
rows of the registry decide which contents are kept. Callers must convert an OSError of the disk to a refusal.
"""

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.files import CONFIG_FILE, FILES, MAX_CONFIG_BYTES, MISSING, WEIGHTS_FILE
from lora_compose.adapters.safe_files import open_regular

DATABASE = "registry.db"
"""The file of the registry's rows in its directory."""

_TOO_LARGE = {CONFIG_FILE: Code.BAD_ADAPTER_CONFIG, WEIGHTS_FILE: Code.WEIGHTS_TOO_LARGE}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """The digest and sizes of two files in the store. The sizes show quickly whether a file was cut short."""

    digest: str
    config_bytes: int
    weights_bytes: int

    @property
    def sizes(self) -> dict[str, int]:
        return {CONFIG_FILE: self.config_bytes, WEIGHTS_FILE: self.weights_bytes}


@dataclass(frozen=True)
class Sealed:
    """Two read-only files in a directory of `tmp/`, ready to be moved into the store."""

    directory: Path
    content: Content


UNKNOWN_BASE = "unknown"
"""The fingerprint and name of the base of versions that were registered without one."""


@dataclass(frozen=True)
class Base:
    """A base model: the fingerprint of its weights, and the name under which it was served."""

    fingerprint: str
    name: str

    def __str__(self) -> str:
        if self.fingerprint == UNKNOWN_BASE:
            return "an unknown base"
        # A name may be a path, which is private.
        return f"{PurePosixPath(self.name).name} ({self.fingerprint[:12]})"


@dataclass(frozen=True)
class Version:
    """An immutable version of an adapter, `name@number`, as the registry describes it."""

    name: str
    number: int
    content: Content
    directory: Path
    """The directory of its two files in the store."""
    rank: int
    parameters: int
    peak: float
    """Upper bound on the norm of the delta of any module at weight 1."""
    coverage: dict[str, Any]
    warnings: tuple[str, ...]
    source: str
    lineage: dict[str, Any]
    created_at: datetime
    bases: tuple[Base, ...] = ()
    """The bases that it was admitted for, at least one."""
    expires_at: datetime | None = None
    """The time at which it is removed, unless something needs it. None: never."""

    @property
    def id(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def digest(self) -> str:
        return self.content.digest

    @property
    def bytes(self) -> int:
        """Size of both files."""
        return self.content.config_bytes + self.content.weights_bytes

    def is_for(self, fingerprints: Collection[str]) -> bool:
        """Whether it was admitted for one of these bases."""
        return any(base.fingerprint in fingerprints for base in self.bases)


class Store:
    """The directories `store/` and `tmp/`. Only one thread at a time may call `install` or `remove`."""

    def __init__(self, data_dir: Path) -> None:
        self.contents = data_dir / "store"
        self.staging_dir = data_dir / "tmp"

    def create(self) -> None:
        """Create the directories. Clean up after a killed process: empty `tmp/`, make contents read-only."""
        for directory in (self.contents, self.staging_dir):
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(directory.parent)
        for left in self.staging_dir.iterdir():
            _remove(left)
        for entry in os.scandir(self.contents):
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_mode & 0o222:
                Path(entry.path).chmod(0o555)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new empty directory on the disk of the store. It is deleted at the end with its contents."""
        directory = self.staging_dir / uuid.uuid4().hex
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            # If a failing disk prevents this, the next start deletes it.
            with suppress(OSError):
                _remove(directory)

    @contextmanager
    def sealed(self, staged: Path) -> Iterator[Sealed]:
        """Move the two files out of `staged`, and make them read-only and durable, for `install`.

        Raises AdapterRejected unless both are regular files."""
        with self.staging() as directory:
            for name in FILES:
                with open_regular(staged / name, MISSING[name]) as file:
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
                (staged / name).rename(directory / name)
            sync_directory(directory)
            yield Sealed(directory, content_of(directory))

    def install(self, sealed: Sealed) -> None:
        """Move a sealed directory into the store.

        If the content exists already, its files are replaced. This repairs them; readers do not notice."""
        target = self.path(sealed.content.digest)
        if target.exists():
            target.chmod(0o755)
            for name in sealed.content.sizes:
                (sealed.directory / name).replace(target / name)
        else:
            sealed.directory.rename(target)
        target.chmod(0o555)
        sync_directory(target)
        sync_directory(self.contents)

    def path(self, digest: str) -> Path:
        return self.contents / digest

    def digests(self) -> set[str]:
        """The digests of all contents on the disk, whether a row names them or not."""
        return {entry.name for entry in self.contents.iterdir()}

    def holds(self, content: Content) -> bool:
        """Whether both files exist with their full sizes. It is quick and reads no bytes of them."""
        for name, size in content.sizes.items():
            try:
                found = (self.path(content.digest) / name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
        return True

    def is_intact(self, content: Content) -> bool:
        """Whether both files still have the digest of `content`. It reads all their bytes."""
        return self.holds(content) and content_of(self.path(content.digest)) == content

    def remove(self, digest: str) -> None:
        """Move a content out of the store in one step, then delete it."""
        directory = self.path(digest)
        # Moving a directory to another parent needs write permission for the directory.
        directory.chmod(0o755)
        moved = self.staging_dir / uuid.uuid4().hex
        directory.rename(moved)
        sync_directory(self.contents)
        _remove(moved)


def content_of(directory: Path) -> Content:
    """The content of `directory`. Its digest is the hex sha256 of the sha256 (32 bytes) of both files."""
    whole, sizes = hashlib.sha256(), []
    for name in FILES:
        with open_regular(directory / name, MISSING[name]) as file:
            part = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                part.update(chunk)
            whole.update(part.digest())
            sizes.append(file.tell())
    return Content(whole.hexdigest(), *sizes)


def copy_regular(source: Path | BinaryIO, target: Path, max_bytes: int) -> None:
    """Copy a regular file, or an open file, to the new file `target`, named like one of the two files.

    Raises AdapterRejected: not_a_regular_file, missing_*, and if the file has more than `max_bytes`,
    bad_adapter_config or weights_too_large."""
    if isinstance(source, Path):
        with open_regular(source, MISSING[target.name]) as file:
            copy_regular(file, target, max_bytes)
        return
    with target.open("xb") as copy:
        while chunk := source.read(_CHUNK):
            if copy.tell() + len(chunk) > max_bytes:
                raise AdapterRejected(
                    _TOO_LARGE[target.name],
                    f"{target.name} has more than {max_bytes} bytes, the largest size that is accepted.",
                )
            copy.write(chunk)


def copy_adapter(config: Path | BinaryIO, weights: Path | BinaryIO, directory: Path, max_bytes: int) -> None:
    """Copy the two files of an adapter into `directory`. Raises the same errors as `copy_regular`."""
    copy_regular(config, directory / CONFIG_FILE, MAX_CONFIG_BYTES)
    copy_regular(weights, directory / WEIGHTS_FILE, max_bytes)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable, so that they survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a directory, which may be read-only, or a file."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    # The usual files are deleted without opening a descriptor, because the process may have no more of them.
    for name in FILES:
        with suppress(IsADirectoryError):
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):
        path.rmdir()
        return
    for parent, _, _ in os.walk(path):
        Path(parent).chmod(0o700)
    shutil.rmtree(path)
