"""`lora-compose compose`: build a merge without a server and export it as a PEFT directory."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from adapters.cli_options import AsJson, DataDir, default_data_dir, echo_json
from adapters.composition_grammar import parse
from adapters.export import check_output, export, find_members
from adapters.names import check_name


def compose(
    composition: Annotated[str, typer.Argument(help="What to combine, and how.", metavar="COMPOSITION")],
    output: Annotated[Path, typer.Argument(help="The PEFT directory to write.", metavar="OUT")],
    data_dir: DataDir = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="A plain PEFT directory, under the name COMPOSITION uses. Repeatable.", metavar="NAME=DIR"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the adapter in OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Combine adapters into one ordinary PEFT adapter, and report what that cost.

    Members are adapters of the registry in --data-dir, or directories given with --adapter.

    - `lora-compose compose "sql:0.7+polite" out` writes the exact sum, at the sum of the ranks
    - `lora-compose compose "svd(sql@3+polite,rank=16)" out` writes the best fit of rank 16
    - `lora-compose compose "ties(a+b:0.5,density=0.3)" out --adapter a=./a --adapter b=./b`

    Methods: stack (the default), linear, svd, ties, dare_linear, dare_ties, magnitude_prune.
    """
    asked = parse(composition, "composition")
    check_output(output, force)
    found = find_members(asked, dict(map(_directory, adapter or [])), data_dir or default_data_dir())
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("modules", total=None)
        report = export(
            asked, found, output, force, lambda done, total: bar.update(task, completed=done, total=total)
        )
    members = [
        {"id": each.id, "weight": each.member.weight, "directory": str(each.directory)} for each in found
    ]
    if as_json:
        result = {"composition": asked.canonical, "directory": str(output), "members": members}
        echo_json(result | {"report": report.to_dict()})
        return
    from adapters.report_table import report_table

    Console().print(report_table(report))
    typer.echo(f"Wrote {asked.canonical} to {output}")


def _directory(given: str) -> tuple[str, Path]:
    name, equals, directory = given.partition("=")
    if not equals or not Path(directory).is_dir():
        raise typer.BadParameter(f"--adapter {given}: write NAME=DIR, with a directory that exists")
    return check_name(name, "adapter"), Path(directory)
