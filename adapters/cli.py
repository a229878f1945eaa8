"""`lora-compose compose`: build a merge without a server and export it as a PEFT directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from lora_compose.adapters.command_line import AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.export import ResolvedMember, check_output, export, find_members
from lora_compose.adapters.names import check_name

if TYPE_CHECKING:
    from lora_compose.adapters.merging.report import MergeReport

MOVED = (
    "`compose` works without a server and no longer searches weights.\n"
    "Use `lora-compose train weights COMPOSITION OUT --rows JSONL`, with --url, --api-key and --seed."
)

CompositionText = Annotated[str, typer.Argument(help="What to combine, and how.", metavar="COMPOSITION")]
Output = Annotated[Path, typer.Argument(help="The PEFT directory to write.", metavar="OUT")]
AdapterDirectories = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        help="A plain PEFT directory, under the name COMPOSITION uses. Repeatable.",
        metavar="NAME=DIR",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the adapter in OUT.")]


def compose(
    composition: CompositionText,
    output: Output,
    data_dir: DataDir = None,
    adapter: AdapterDirectories = None,
    force: Force = False,
    moved: Annotated[str | None, typer.Option("--tune", "--url", "--api-key", "--seed", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Combine adapters into one ordinary PEFT adapter, and report what that cost.

    Members are adapters of the registry in --data-dir, or directories given with --adapter.

    - `lora-compose compose "sql:0.7+polite" out` writes the exact sum, at the sum of the ranks
    - `lora-compose compose "svd(sql@3+polite,rank=16)" out` writes the best fit of rank 16
    - `lora-compose compose "ties(a+b:0.5,density=0.3)" out --adapter a=./a --adapter b=./b`

    `lora-compose train weights` searches the weights of a stack against a running server.

    Methods: stack (the default), linear, svd, ties, dare_linear, dare_ties, magnitude_prune.
    """
    if moved is not None:
        raise LoraComposeError(CommandCode.OPTION_MOVED, MOVED, "tune")
    asked = parse(composition, "composition")
    check_output(output, force)
    found = find_members(asked, named_directories(adapter), data_dir or default_data_dir())
    report = export_with_progress(asked, found, output, force)
    if as_json:
        echo_json(export_facts(asked, found, output, report))
    else:
        show_export(asked, output, report)


def export_with_progress(
    asked: Composition, found: Sequence[ResolvedMember], output: Path, force: bool
) -> "MergeReport":
    """`export`, with a progress bar on stderr if that is a terminal."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("modules", total=None)
        return export(
            asked, found, output, force, lambda done, total: bar.update(task, completed=done, total=total)
        )


def export_facts(
    asked: Composition, found: Sequence[ResolvedMember], output: Path, report: "MergeReport"
) -> dict[str, Any]:
    """What --json prints of an export."""
    members = [
        {"id": each.id, "weight": each.member.weight, "directory": str(each.directory)} for each in found
    ]
    facts = {"composition": asked.canonical, "directory": str(output), "members": members}
    return facts | {"report": report.to_dict()}


def show_export(asked: Composition, output: Path, report: "MergeReport") -> None:
    """The report as a table, and the directory that was written."""
    from lora_compose.adapters.merging.report import report_table

    Console().print(report_table(report))
    typer.echo(f"Wrote {asked.canonical} to {output}")


def named_directories(given: Sequence[str] | None) -> dict[str, Path]:
    """Every `NAME=DIR` of the command line."""
    return dict(map(_named_directory, given or ()))


def _named_directory(given: str) -> tuple[str, Path]:
    name, equals, directory = given.partition("=")
    if not equals or not Path(directory).is_dir():
        raise typer.BadParameter(f"--adapter {given}: write NAME=DIR, with a directory that exists")
    return check_name(name, "adapter"), Path(directory)
