"""Checks what a server would do with a registry on a base: versions of other bases, pins, fusion, merges."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.store import DATABASE
from lora_compose.server.doctor.check import Check, Finding, ok, warn
from lora_compose.server.doctor.data_directory import SECTION

if TYPE_CHECKING:
    from lora_compose.adapters.registry.registry import Registry

NO_REGISTRY = "there is no registry yet"


def checks(directory: Path, model: Path) -> list[Check]:
    rows: tuple[tuple[str, Callable[[Path, Path], Finding]], ...] = (
        ("bases", bases),
        ("pins and fusion", kept),
        ("merges", merges),
    )
    return [Check(SECTION, name, partial(run, directory, model)) for name, run in rows]


@contextmanager
def _opened(directory: Path) -> Iterator["Registry | None"]:
    from lora_compose.adapters.registry.registry import Registry

    if not (directory / DATABASE).is_file():
        yield None
        return
    with Registry.open_readonly(directory) as registry:
        yield registry


def bases(directory: Path, model: Path) -> Finding:
    """Counts the versions that were registered for another base than --model."""
    from lora_compose.adapters.admission.fingerprint import fingerprint

    with _opened(directory) as registry:
        if registry is None:
            return ok(NO_REGISTRY)
        own = fingerprint(model)
        others = {base: count for base, count in registry.bases.counts().items() if base.fingerprint != own}
        count = registry.bases.count_others({own})
    if not count:
        return ok(f"every version was registered for this base (fingerprint {own[:12]})")
    named = ", ".join(f"{number} for {base}" for base, number in others.items())
    return warn(
        f"{count} versions were registered for another base and are not served on this one "
        f"(fingerprint {own[:12]}): {named}",
        "Register their files again on this base, set --model to their base, or start `serve` with "
        f"--accept-base {next(iter(others)).fingerprint[:12]}",
    )


def kept(directory: Path, model: Path) -> Finding:
    """Lists the pins and the fused composition that the next start would not restore."""
    from lora_compose.adapters.admission.fingerprint import fingerprint

    with _opened(directory) as registry:
        if registry is None:
            return ok(NO_REGISTRY)
        own, pins, fused = fingerprint(model), registry.kept.pins(), registry.kept.fused()
        lost = [name for name in [*pins, *([fused] if fused else [])] if not _restores(registry, name, own)]
    if lost:
        return warn(
            f"the next start on this base does not restore {', '.join(lost)}: a version is missing or was "
            "registered for another base",
            "Register the files again on this base. Then pin or fuse again",
        )
    if not pins and not fused:
        return ok("nothing is pinned or fused")
    return ok(f"the next start restores {len(pins)} pins and {fused or 'the plain base'}")


def _restores(registry: "Registry", name: str, base: str) -> bool:
    try:
        members = parse(name).members
        return all(registry.resolve(member.name, member.ref).is_for({base}) for member in members)
    except LoraComposeError:
        return False


def merges(directory: Path, _: Path) -> Finding:
    """Shows the disk space of the built merges."""
    with _opened(directory) as registry:
        if registry is None:
            return ok(NO_REGISTRY)
        count, size = registry.merges.size()
    return ok(f"{count} built merges ({size / 1e6:.1f} MB); `serve --merge-cache-bytes` bounds them")
