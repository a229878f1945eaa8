"""Build a composition outside any server and write it as one ordinary PEFT directory.

Its members come from a data directory's registry, which a server may be using meanwhile, or from plain PEFT
directories. The adapter is built beside its place and moved there whole.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.composition.composition import Composition, Member
from lora_compose.adapters.errors import Code, CommandCode, Conflict, InvalidRequest, StorageUnavailable
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from lora_compose.adapters.merging.report import MergeReport


@dataclass(frozen=True)
class ResolvedMember:
    """A member, which version it resolved to (its name, for a plain directory), and where its files are."""

    member: Member
    id: str
    directory: Path


def find_members(
    composition: Composition, directories: Mapping[str, Path], data_dir: Path
) -> list[ResolvedMember]:
    """Each member in `directories`, by name, or else in the registry in `data_dir`.

    Raises NotFound for what is in neither, InvalidRequest for a version of a plain directory."""
    found = []
    with ExitStack() as stack:
        registry = None
        for member in composition.members:
            directory = directories.get(member.name)
            if directory is not None:
                found.append(_plain(member, directory))
                continue
            if registry is None:
                from lora_compose.adapters.registry.registry import Registry

                registry = stack.enter_context(Registry.open_readonly(data_dir))
            version = registry.resolve(member.name, member.ref)
            found.append(ResolvedMember(member, version.id, version.directory))
    return found


def _plain(member: Member, directory: Path) -> ResolvedMember:
    if member.ref is not None:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION, f"{directory} is a plain directory: it has no @{member.ref}"
        )
    return ResolvedMember(member, member.name, directory)


def export(
    composition: Composition,
    found: Sequence[ResolvedMember],
    output: Path,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> "MergeReport":
    """Merge `found` into the directory `output`; `progress(done, total)` counts modules.

    Raises Conflict("output_exists") where `output` holds anything and `overwrite` is not set, and
    StorageUnavailable where it cannot be written. Overwriting replaces an adapter's two files only."""
    from lora_compose.adapters.merging import merge

    check_output(output, overwrite)
    ingredients = [merge.Ingredient(each.directory, each.member.weight) for each in found]
    base = _base_of(found)
    with _built_beside(output) as built:
        report = merge.build(composition.method, ingredients, composition.options, built, base, progress)
    return report


@contextmanager
def _built_beside(output: Path) -> Iterator[Path]:
    """A directory to write an adapter into; what is in it gets to `output` when the context ends well."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lora-compose-", dir=output.parent) as temporary:
            built = Path(temporary, "built")
            built.mkdir()
            yield built
            _place(built, output)
    except OSError as error:
        raise StorageUnavailable(
            CommandCode.OUTPUT_NOT_WRITTEN, f"{output} cannot be written: {error}"
        ) from error


def _place(built: Path, output: Path) -> None:
    # safetensors keeps its file to the owner; the config has the mode that any new file has here.
    (built / WEIGHTS_FILE).chmod((built / CONFIG_FILE).stat().st_mode)
    if not output.exists():
        built.rename(output)
        return
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (built / name).replace(output / name)


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that would hide what is there, before any work is done."""
    if output.exists() and not output.is_dir():
        raise Conflict(CommandCode.OUTPUT_EXISTS, f"{output} is a file")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise Conflict(
            CommandCode.OUTPUT_EXISTS, f"{output} is not empty; --force replaces the adapter in it"
        )


def _base_of(found: Sequence[ResolvedMember]) -> str:
    """The base the first member names; that the members' shapes agree is checked when they are merged."""
    from lora_compose.adapters.peft.config import read_config

    names = (read_config(each.directory).base_model_name_or_path for each in found)
    return next((name for name in names if name), "")
