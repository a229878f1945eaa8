"""Merges a composition without a server and writes it as one ordinary PEFT directory.

The members come from a registry, which a server may use at the same time, or from plain PEFT directories.
The adapter is built in a temporary directory beside `output` and renamed, so `output` is never incomplete.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from lora_compose.adapters.admission.recognition import check_directory
from lora_compose.adapters.composition.composition import Composition, Member
from lora_compose.adapters.errors import (
    AdapterRejected,
    Code,
    CommandCode,
    Conflict,
    InvalidRequest,
    NotFound,
    StorageUnavailable,
)
from lora_compose.adapters.names import suggestion
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from lora_compose.adapters.merging.advice import Advice
    from lora_compose.adapters.merging.report import MergeReport
    from lora_compose.adapters.registry.registry import Registry
    from lora_compose.adapters.registry.store import Version


@dataclass(frozen=True)
class ResolvedMember:
    """A member of a composition, and the directory of its files."""

    member: Member
    id: str
    """`name@number` of its version, or its name if it is a plain directory."""
    directory: Path


def find_members(
    composition: Composition, directories: Mapping[str, Path], data_dir: Path
) -> list[ResolvedMember]:
    """Find each member by its name in `directories`, or else in the registry in `data_dir`.

    Raises NotFound if a member is in neither, InvalidRequest if a plain directory has a version or alias, and
    AdapterRejected("wrong_base") if two members were registered for different bases."""
    members, versions = [], []
    with ExitStack() as stack:
        registry = None
        for member in composition.members:
            directory = directories.get(member.name)
            if directory is not None:
                members.append(_plain_directory(member, directory))
                continue
            if registry is None:
                from lora_compose.adapters.registry.registry import Registry

                registry = stack.enter_context(Registry.open_readonly(data_dir))
            version = _resolved(registry, member, directories)
            versions.append(version)
            members.append(ResolvedMember(member, version.id, version.directory))
    _check_one_base(versions)
    return members


def _resolved(registry: "Registry", member: Member, directories: Mapping[str, Path]) -> "Version":
    """The member's version. Raises NotFound with the most similar name."""
    try:
        return registry.resolve(member.name, member.ref)
    except NotFound as error:
        names = {*directories, *registry.names()}
        similar = "" if member.name in names else suggestion(member.name, names)
        raise NotFound(error.code, f"{error.message}{similar}", error.param) from error


def _check_one_base(versions: Sequence["Version"]) -> None:
    """Adapters of different bases do not add up, even if their shapes are the same."""
    from lora_compose.adapters.registry.store import UNKNOWN_BASE

    for version in versions[1:]:
        known = {base.fingerprint for base in versions[0].bases}
        if not version.is_for({*known, UNKNOWN_BASE}) and UNKNOWN_BASE not in known:
            bases = f"{versions[0].bases[0]}, and {version.id} for {version.bases[0]}"
            raise AdapterRejected(
                Code.WRONG_BASE,
                f"{versions[0].id} was registered for {bases}. Adapters of different bases cannot be merged.",
            )


def different_bases(members: Sequence[ResolvedMember]) -> "list[Advice]":
    """A warning if the configs of two members name different bases. Only the last parts of paths count."""
    from lora_compose.adapters.merging.advice import of_different_bases
    from lora_compose.adapters.peft.config import read_config

    named = ((one.id, read_config(one.directory).base_model_name_or_path) for one in members)
    return of_different_bases([(name, PureWindowsPath(base).name) for name, base in named if base])


def _plain_directory(member: Member, directory: Path) -> ResolvedMember:
    if member.ref is not None:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION,
            f"{member.name!r} is the plain directory {directory}, which has no versions or aliases. "
            f"Remove '@{member.ref}'.",
        )
    check_directory(directory)
    return ResolvedMember(member, member.name, directory)


def export(
    composition: Composition,
    members: Sequence[ResolvedMember],
    output: Path,
    overwrite: bool = False,
    base: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> "MergeReport":
    """Merge `members` into the directory `output`. `on_progress(done, total)` counts modules.

    `base` is the directory of the base, which only DoRA needs. By default it is the directory that the
    members' configs name, if there is one.

    Raises Conflict("output_exists") if `output` is not empty and `overwrite` is false, and StorageUnavailable
    if it cannot be written. Overwriting replaces only the two files of an adapter."""
    from lora_compose.adapters.merging import merge

    check_output(output, overwrite)
    inputs = [merge.MergeInput(resolved.directory, resolved.member.weight) for resolved in members]
    name = _base_of(members)
    directory_of_base = base or (Path(name) if name and Path(name).is_dir() else None)
    with moved_to(output) as directory:
        report = merge.build(
            composition.method,
            inputs,
            composition.options,
            directory,
            merge.MergeBase(name, directory_of_base),
            on_progress,
        )
    return report


@contextmanager
def moved_to(output: Path) -> Iterator[Path]:
    """A temporary directory for an adapter. Its files are moved to `output` if the body raises nothing."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lora-compose-", dir=output.parent) as temporary:
            built = Path(temporary, "built")
            built.mkdir()
            yield built
            _move(built, output)
    except OSError as error:
        raise StorageUnavailable(
            CommandCode.OUTPUT_NOT_WRITTEN, f"The directory {output} cannot be written: {error}"
        ) from error


def _move(built: Path, output: Path) -> None:
    # safetensors makes a file that only its owner can read. The config has the usual mode of a new file.
    (built / WEIGHTS_FILE).chmod((built / CONFIG_FILE).stat().st_mode)
    if not output.exists():
        built.rename(output)
        return
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (built / name).replace(output / name)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise Conflict("output_exists") before any work is done, if writing would replace a user's files."""
    if output.exists() and not output.is_dir():
        raise Conflict(CommandCode.OUTPUT_EXISTS, f"{output} is a file. Choose a directory.")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise Conflict(
            CommandCode.OUTPUT_EXISTS, f"{output} is not empty. Use --force to replace the adapter in it."
        )


def _base_of(members: Sequence[ResolvedMember]) -> str:
    """The base in the config of the first member that has one. Merging checks that the shapes agree."""
    from lora_compose.adapters.peft.config import read_config

    names = (read_config(resolved.directory).base_model_name_or_path for resolved in members)
    return next((name for name in names if name), "")
