"""Adapter files by content: `store/<digest>/`, holding the two files of a PEFT adapter, immutable.

New files are made in `tmp/` and renamed into place, so a reader never sees half an adapter. Which contents
are wanted the registry's rows say. An OSError of the disk is the caller's to turn into a refusal.
"""

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.files import CONFIG_FILE, FILES, MAX_CONFIG_BYTES, MISSING, WEIGHTS_FILE
from lora_compose.adapters.safe_files import open_regular

_TOO_LARGE = {CONFIG_FILE: Code.BAD_ADAPTER_CONFIG, WEIGHTS_FILE: Code.WEIGHTS_TOO_LARGE}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """Two files as they must be in the store: named by their digest; the sizes tell at once if one is cut."""

    digest: str
    config_bytes: int
    weights_bytes: int

    @property
    def sizes(self) -> dict[str, int]:
        return {CONFIG_FILE: self.config_bytes, WEIGHTS_FILE: self.weights_bytes}


@dataclass(frozen=True)
class Sealed:
    """Two files in a folder of `tmp/`, ready to be put in their place."""

    directory: Path
    content: Content


@dataclass(frozen=True)
class Version:
    """An immutable adapter: what the registry knows about `name@number`."""

    name: str
    number: int
    content: Content
    directory: Path
    """Where its two files are, in our store."""
    rank: int
    parameters: int
    peak: float
    """Bound on the norm of any module's delta at weight 1."""
    coverage: dict[str, Any]
    warnings: tuple[str, ...]
    source: str
    lineage: dict[str, Any]
    created_at: datetime

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

    @property
    def base_fingerprint(self) -> str | None:
        """`BaseShapes.fingerprint` of the base it was admitted for, where the lineage says."""
        return self.lineage.get("base_fingerprint")


class Store:
    """The folders `store/` and `tmp/` of a data directory. One thread at a time may `install` or `remove`."""

    def __init__(self, data_dir: Path) -> None:
        self.contents = data_dir / "store"
        self.staging_dir = data_dir / "tmp"

    def create(self) -> None:
        """Make the folders, and undo what a process that died left: files in `tmp/`, folders not sealed."""
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
        """A new empty folder on the store's disk, gone at the end with all that is in it."""
        directory = self.staging_dir / uuid.uuid4().hex
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            # What a failing disk will not let go is emptied at the next start.
            with suppress(OSError):
                _remove(directory)

    @contextmanager
    def sealed(self, staged: Path) -> Iterator[Sealed]:
        """The two files moved out of `staged`, made read-only and durable, until the end or `install`.

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
        """Put a sealed folder in its place.

        If the content is there already, its files are renewed: a repair that no reader can notice."""
        place = self.path(sealed.content.digest)
        if place.exists():
            place.chmod(0o755)
            for name in sealed.content.sizes:
                (sealed.directory / name).replace(place / name)
        else:
            sealed.directory.rename(place)
        place.chmod(0o555)
        sync_directory(place)
        sync_directory(self.contents)

    def path(self, digest: str) -> Path:
        return self.contents / digest

    def digests(self) -> set[str]:
        """What is on the disk, wanted or not."""
        return {entry.name for entry in self.contents.iterdir()}

    def holds(self, content: Content) -> bool:
        """Whether both files are there at their full size; quick, so their bytes are not read."""
        for name, size in content.sizes.items():
            try:
                found = (self.path(content.digest) / name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
        return True

    def is_intact(self, content: Content) -> bool:
        """Whether both files still have the bytes that gave them their name. Reads them whole."""
        return self.holds(content) and content_of(self.path(content.digest)) == content

    def remove(self, digest: str) -> None:
        """Take a content out at once, then delete it."""
        place = self.path(digest)
        # Moving a folder to another parent needs the right to write in it.
        place.chmod(0o755)
        doomed = self.staging_dir / uuid.uuid4().hex
        place.rename(doomed)
        sync_directory(self.contents)
        _remove(doomed)


def content_of(directory: Path) -> Content:
    """The digest is sha256 over the sha256 of the config and of the weights (32 bytes each), in hex."""
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
    """Copy a regular file, or one that is open already, to the new file `target`, one of the two by name.

    Raises AdapterRejected not_a_regular_file, missing_*, or bad_adapter_config or weights_too_large beyond
    `max_bytes`."""
    if isinstance(source, Path):
        with open_regular(source, MISSING[target.name]) as file:
            copy_regular(file, target, max_bytes)
        return
    with target.open("xb") as copy:
        while chunk := source.read(_CHUNK):
            if copy.tell() + len(chunk) > max_bytes:
                raise AdapterRejected(
                    _TOO_LARGE[target.name], f"{target.name} has more than {max_bytes} bytes."
                )
            copy.write(chunk)


def copy_adapter(config: Path | BinaryIO, weights: Path | BinaryIO, directory: Path, max_bytes: int) -> None:
    """Copy the two files of an adapter into `directory`; raises as `copy_regular`."""
    copy_regular(config, directory / CONFIG_FILE, MAX_CONFIG_BYTES)
    copy_regular(weights, directory / WEIGHTS_FILE, max_bytes)


def sync_directory(directory: Path) -> None:
    """Make a directory's entries survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a folder, read-only or not, or a stray file."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    # What is there as a rule goes without a descriptor, of which there may be none left.
    for name in FILES:
        with suppress(IsADirectoryError):
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):
        path.rmdir()
        return
    for parent, _, _ in os.walk(path):
        Path(parent).chmod(0o700)
    shutil.rmtree(path)
