"""Is a data directory writable, with room, free to own, and its registry whole? Nothing in it is changed."""

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from lora_compose.adapters.errors import Conflict, LoraComposeError, NotFound, StorageUnavailable
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn

SECTION = "data"
GIB = 1 << 30
ENOUGH_DISK = 2 * GIB
LEAST_DISK = GIB // 4
DATABASE = "registry.db"


def checks(directory: Path) -> list[Check]:
    rows = (
        ("permission", permission),
        ("disk", disk),
        ("lock", lock),
        ("registry", registry),
        ("stored files", stored_files),
    )
    return [Check(SECTION, name, partial(look, directory)) for name, look in rows]


def nearest(directory: Path) -> Path:
    """The directory itself, or of those above it the first that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if path.exists())


def permission(directory: Path) -> Finding:
    """By writing a file that has no name, since modes are not all there is to it."""
    place = nearest(directory)
    advice = "Give --data-dir a directory that the server's user may write to"
    if not place.is_dir():
        return fail(f"{place} is a file", advice)
    try:
        with TemporaryFile(dir=place) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return fail(f"{place} cannot be written to: {error.strerror}", advice)
    return ok(f"{directory} can be written to" if place == directory else f"{directory} can be made")


def disk(directory: Path) -> Finding:
    free = shutil.disk_usage(nearest(directory)).free
    words = f"{free / GIB:.1f} GiB are free"
    advice = "Free some, remove adapters nobody uses, or give --data-dir another disk"
    if free < LEAST_DISK:
        return fail(f"only {words}: adapters and merges are stored there", advice)
    return warn(f"only {words}", advice) if free < ENOUGH_DISK else ok(words)


def lock(directory: Path) -> Finding:
    from lora_compose.adapters.registry.data_dir import acquire, directory_lock

    if not (directory / "lock").is_file():
        return ok("nobody has owned it yet")
    held = directory_lock(directory)
    try:
        acquire(held)
    except Conflict:
        return warn(
            "a server owns it now, so a second one cannot start on it",
            "Stop that server first, or give the second one its own --data-dir",
        )
    held.release()
    return ok("nobody owns it now")


def registry(directory: Path) -> Finding:
    """Rows, aliases, saved compositions and files agree."""
    from lora_compose.adapters.registry.registry import Registry

    if not (directory / DATABASE).is_file():
        return ok("there is none yet; the first start makes it")
    try:
        with Registry.open_readonly(directory) as opened:
            opened.check_integrity()
            names, saved = opened.names(), opened.compositions()
    except (AssertionError, NotFound) as error:
        return fail(str(error), "Register what is named again: the same bytes repair it")
    except StorageUnavailable as error:
        return fail(
            f"{DATABASE} cannot be read: {str(error.__cause__).partition(chr(10))[0]}",
            f"Restore {DATABASE} from a backup before a server starts: files it does not name are swept",
        )
    return ok(f"{len(names)} adapters and {len(saved)} saved compositions")


def stored_files(directory: Path) -> Finding:
    """Every version's bytes against the digest that is their name."""
    from lora_compose.adapters.registry.registry import Registry

    if not (directory / DATABASE).is_file():
        return ok("none yet")
    damaged, whole, size = [], 0, 0
    with Registry.open_readonly(directory) as opened:
        for version in (version for name in opened.names() for version in opened.versions(name)):
            try:
                opened.verify(version)
            except LoraComposeError:
                damaged.append(version.id)
            else:
                whole, size = whole + 1, size + version.bytes
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        return fail(
            f"{len(damaged)} of {len(damaged) + whole} versions are missing or damaged: "
            f"{', '.join(damaged[:5])}{more}",
            "Register the same bytes again, which repairs them, or remove them",
        )
    return ok(f"{whole} versions, {size / 1e6:.1f} MB, are what their digests say")
