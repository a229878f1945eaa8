"""`lora-compose compose`: merge adapters without a server and write the result as a PEFT directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_compose.adapters.command_line import AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.export import ResolvedMember, check_output, export, find_members
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.names import check_name
from lora_compose.adapters.terminal import progress_bar, stdout

if TYPE_CHECKING:
    from lora_compose.adapters.merging.advice import Advice
    from lora_compose.adapters.merging.report import MergeReport

MOVED = (
    "`compose` works without a server and no longer searches weights.\n"
    "Use `lora-compose train weights COMPOSITION OUT --rows JSONL`, with --url, --api-key and --seed."
)

CompositionText = Annotated[str, typer.Argument(help="The composition to build.", metavar="COMPOSITION")]
Output = Annotated[Path, typer.Argument(help="The PEFT directory to write.", metavar="OUT")]
AdapterDirectories = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        help="A PEFT directory that is not in the registry, and its name in COMPOSITION. Repeatable.",
        metavar="NAME=DIR",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="The directory of the base's weights. Only DoRA adapters need it. The default is the directory "
        "that the adapters' configs name.",
        metavar="DIR",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the adapter that is in OUT.")]


def compose(
    composition: CompositionText,
    output: Output,
    data_dir: DataDir = None,
    adapter: AdapterDirectories = None,
    base: Base = None,
    force: Force = False,
    moved: Annotated[str | None, typer.Option("--tune", "--url", "--api-key", "--seed", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Merge adapters into one ordinary PEFT adapter, and report the error of the merge.

    The adapters come from the registry in --data-dir, or from directories given with --adapter.

    - `lora-compose compose "sql:0.7+polite" out` writes the exact sum. Its rank is the sum of the ranks
    - `lora-compose compose "svd(sql@3+polite,rank=16)" out` writes the closest adapter of rank 16
    - `lora-compose compose "ties(a+b:0.5,density=0.3)" out --adapter a=./a --adapter b=./b`

    To search for the weights of a stack with a running server, use `lora-compose train weights`.

    Methods: stack (the default), linear, svd, ties, dare_linear, dare_ties, magnitude_prune.
    """
    if moved is not None:
        raise LoraComposeError(CommandCode.OPTION_MOVED, MOVED, "tune")
    parsed = parse(composition, "composition")
    check_output(output, force)
    members = find_members(parsed, named_directories(adapter), data_dir or default_data_dir())
    report = export_with_progress(parsed, members, output, force, base_directory(base))
    warnings = warnings_of(parsed, members)
    if as_json:
        echo_json(export_facts(parsed, members, output, report) | {"warnings": warnings})
        return
    show_export(parsed, output, report)
    for warning in warnings:
        typer.secho(f"Warning: {warning['message']}", err=True, fg="yellow")
        if warning["suggested"] is not None:
            typer.echo(f"  Try first: {warning['suggested']}", err=True)


def warnings_of(composition: Composition, members: Sequence[ResolvedMember]) -> list[dict[str, Any]]:
    """The warnings of `adapters.merging.advice` about the members, as a server gives them."""
    from lora_compose.adapters.export import different_bases
    from lora_compose.adapters.merging.advice import advise
    from lora_compose.adapters.merging.interference import interference

    if len(members) < 2:
        return []
    found = interference([resolved.directory for resolved in members])
    return [*map(_warning, [*different_bases(members), *advise(composition, found)])]


def show_different_bases(members: Sequence[ResolvedMember]) -> list[dict[str, Any]]:
    """Print a warning if the members were trained on different bases. Returns it as a server gives it."""
    from lora_compose.adapters.export import different_bases

    warnings = [*map(_warning, different_bases(members))]
    for warning in warnings:
        typer.secho(f"Warning: {warning['message']}", err=True, fg="yellow")
    return warnings


def _warning(advice: "Advice") -> dict[str, Any]:
    return {"code": advice.reason, "message": advice.message, "suggested": advice.suggested}


def export_with_progress(
    composition: Composition,
    members: Sequence[ResolvedMember],
    directory: Path,
    force: bool,
    base: Path | None = None,
) -> "MergeReport":
    """`export`, with progress on stderr."""
    with progress_bar("modules") as step:
        return export(composition, members, directory, force, base, lambda done, total: step(done, total, ""))


def export_facts(
    composition: Composition, members: Sequence[ResolvedMember], output: Path, report: "MergeReport"
) -> dict[str, Any]:
    """The facts about an export that --json prints."""
    rows = [
        {"id": resolved.id, "weight": resolved.member.weight, "directory": str(resolved.directory)}
        for resolved in members
    ]
    facts = {"composition": composition.canonical, "directory": str(output), "members": rows}
    return facts | {"report": report.to_dict()}


def show_export(composition: Composition, output: Path, report: "MergeReport") -> None:
    """Print the report as a table, and the directory that was written."""
    from lora_compose.adapters.merging.report import report_table

    stdout().print(report_table(report))
    typer.echo(f"Wrote {composition.canonical} to {output}")


def base_directory(base: str | None) -> Path | None:
    """The directory that --base names."""
    if base is None:
        return None
    directory = Path(resolve(base, "--base"))
    if not directory.is_dir():
        raise typer.BadParameter(
            f"--base {base} must be a directory, or a name of `lora-compose models list`"
        )
    return directory


def named_directories(values: Sequence[str] | None) -> dict[str, Path]:
    """The directories of all `--adapter NAME=DIR` options, by name."""
    return dict(map(_named_directory, values or ()))


def _named_directory(value: str) -> tuple[str, Path]:
    name, equals, directory = value.partition("=")
    if not equals or not Path(directory).is_dir():
        raise typer.BadParameter(f"--adapter {value} must be NAME=DIR, and the directory DIR must exist")
    return check_name(name, "adapter"), Path(directory)
