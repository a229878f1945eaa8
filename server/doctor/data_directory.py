"""Checks of a data directory: permission, disk, lock, registry and stored files. They change nothing."""

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from lora_compose.adapters.errors import Conflict, LoraComposeError, NotFound, StorageUnavailable
from lora_compose.adapters.registry.store import DATABASE
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn

SECTION = "data"
GIB = 1 << 30
ENOUGH_DISK = 2 * GIB
LEAST_DISK = GIB // 4


def checks(directory: Path) -> list[Check]:
    rows = (
        ("permission", permission),
        ("disk", disk),
        ("lock", lock),
        ("registry", registry),
        ("stored files", stored_files),
    )
    return [Check(SECTION, name, partial(run, directory)) for name, run in rows]


def nearest(directory: Path) -> Path:
    """The directory itself, or its nearest parent that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if path.exists())


def permission(directory: Path) -> Finding:
    """Writes a file without a name, because the file mode alone does not decide about access."""
    place = nearest(directory)
    advice = "Set --data-dir to a directory that the server's user can write to"
    if not place.is_dir():
        return fail(f"{place} is not a directory", advice)
    try:
        with TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return fail(f"{place} cannot be written to: {error.strerror}", advice)
    return ok(f"{directory} is writable" if place == directory else f"{directory} can be created")


def disk(directory: Path) -> Finding:
    free = shutil.disk_usage(nearest(directory)).free
    space = f"{free / GIB:.1f} GiB are free"
    advice = "Free disk space, remove unused adapters, or set --data-dir to a directory on another disk"
    if free < LEAST_DISK:
        return fail(f"only {space}, and adapters and merges are stored there", advice)
    return warn(f"only {space}", advice) if free < ENOUGH_DISK else ok(space)


def lock(directory: Path) -> Finding:
    from lora_compose.adapters.registry.data_dir import acquire, directory_lock

    if not (directory / "lock").is_file():
        return ok("no server has used this directory yet")
    lock_file = directory_lock(directory)
    try:
        acquire(lock_file)
    except Conflict:
        return warn(
            "a server uses this directory now, so a second server cannot start on it",
            "Stop that server first, or start the second one with another --data-dir",
        )
    lock_file.release()
    return ok("no server uses this directory now")


def registry(directory: Path) -> Finding:
    """Checks that rows, aliases, saved compositions and files agree."""
    from lora_compose.adapters.registry.registry import Registry

    if not (directory / DATABASE).is_file():
        return ok("there is no registry yet; the first start of a server creates it")
    try:
        with Registry.open_readonly(directory) as opened:
            opened.check_integrity()
            names, saved = opened.names(), opened.compositions()
    except (AssertionError, NotFound) as error:
        return fail(str(error), "Register the named adapter again: the same files repair it")
    except StorageUnavailable as error:
        return fail(
            f"{DATABASE} cannot be read: {str(error.__cause__).partition(chr(10))[0]}",
            f"Restore {DATABASE} from a backup before you start a server, because a server deletes files "
            f"that {DATABASE} does not name",
        )
    return ok(f"{len(names)} adapters and {len(saved)} saved compositions")


def stored_files(directory: Path) -> Finding:
    """Compares the files of every version with their digest."""
    from lora_compose.adapters.registry.registry import Registry

    if not (directory / DATABASE).is_file():
        return ok("there are no stored files yet")
    damaged, intact, size = [], 0, 0
    with Registry.open_readonly(directory) as opened:
        for version in (version for name in opened.names() for version in opened.versions(name)):
            try:
                opened.verify(version)
            except LoraComposeError:
                damaged.append(version.id)
            else:
                intact, size = intact + 1, size + version.bytes
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        return fail(
            f"{len(damaged)} of {len(damaged) + intact} versions are missing or damaged: "
            f"{', '.join(damaged[:5])}{more}",
            "Register the same files again, which repairs them, or remove the versions",
        )
    return ok(f"{intact} versions ({size / 1e6:.1f} MB) match their digests")
