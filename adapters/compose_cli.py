"""`lora-compose compose`: build a merge without a server and export it as a PEFT directory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from adapters.cli_options import DEFAULT_URL, ApiKey, AsJson, DataDir, Url, default_data_dir, echo_json
from adapters.composition import Composition
from adapters.composition_grammar import parse
from adapters.export import Found, check_output, export, find_members
from adapters.names import check_name
from adapters.weight_search import Trial

if TYPE_CHECKING:
    from adapters.tuning import Tuned


def compose(  # noqa: PLR0913  the options of a command
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
    tune: Annotated[
        Path | None,
        typer.Option(
            help="Search weights on these rows of prompt and completion, asking the server at --url.",
            metavar="JSONL",
            show_default=False,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    seed: Annotated[int, typer.Option(help="Decides which half of the rows --tune holds out.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Combine adapters into one ordinary PEFT adapter, and report what that cost.

    Members are adapters of the registry in --data-dir, or directories given with --adapter.

    - `lora-compose compose "sql:0.7+polite" out` writes the exact sum, at the sum of the ranks
    - `lora-compose compose "svd(sql@3+polite,rank=16)" out` writes the best fit of rank 16
    - `lora-compose compose "ties(a+b:0.5,density=0.3)" out --adapter a=./a --adapter b=./b`
    - `lora-compose compose "roll+upper" out --tune rows.jsonl` writes the weights that answer best

    --tune needs a running server that holds the same adapters. It searches on half of the rows, by exact
    match, and reports the other half beside it: weights that only learnt the rows by heart show there.

    Methods: stack (the default), linear, svd, ties, dare_linear, dare_ties, magnitude_prune.
    """
    asked = parse(composition, "composition")
    check_output(output, force)
    found = find_members(asked, dict(map(named_directory, adapter or [])), data_dir or default_data_dir())
    tuned = None
    if tune is not None:
        tuned = _tuned(asked, found, tune, (url, api_key, seed))
        found = with_weights_of(found, tuned.composition)
        asked = replace(asked, members=tuple(each.member for each in found))
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
        echo_json(result | {"report": report.to_dict()} | ({"tuned": tuned.to_dict()} if tuned else {}))
        return
    from adapters.report_table import report_table

    Console().print(report_table(report))
    if tuned is not None:
        Console().print(tuned_table(tuned))
        if not tuned.pays:
            typer.echo(
                "The held-out half gains nothing: keep the weights as they were, or bring more rows", err=True
            )
    typer.echo(f"Wrote {asked.canonical} to {output}")


def _tuned(
    asked: Composition, found: Sequence[Found], file: Path, server: tuple[str, str | None, int]
) -> "Tuned":
    """Weights searched by asking the server, which is given, with its key and the seed, as one."""
    from adapters.tuning import pinned, tune
    from adapters.validation_rows import read_validation
    from server.client.chat import ChatClient

    url, api_key, seed = server
    rows = read_validation(file)
    exact = pinned(asked, {each.member.id: each.id for each in found})
    screen = Console(stderr=True)
    columns = (
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TextColumn("best {task.fields[best]:.2f}"),
    )
    with (
        ChatClient(url, api_key) as client,
        Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar,
    ):
        task = bar.add_task("weights tried", total=None, best=0.0)
        best = 0.0

        def told(trial: Trial) -> None:
            nonlocal best
            best = max(best, trial.score)
            bar.update(task, advance=1, best=best)

        return tune(exact, rows, client, seed, told)


def with_weights_of(found: Sequence[Found], tuned: Composition) -> list[Found]:
    """The members as they were asked for, at the weights of `tuned`, which names the versions found."""
    weights = {member.id: member.weight for member in tuned.members}
    return [replace(each, member=replace(each.member, weight=weights[each.id])) for each in found]


def tuned_table(tuned: "Tuned") -> Table:
    """Exact matches before and after, on the half that was searched on and the half that was not."""
    table = Table("rows", "weights as given", "tuned", box=None, pad_edge=False)
    for name, count, before, after in (
        ("searched on", tuned.tuned_rows, tuned.tuned_before, tuned.tuned_after),
        ("held out", tuned.held_out_rows, tuned.held_out_before, tuned.held_out_after),
    ):
        table.add_row(f"{name} ({count})", f"{before:.2f}", f"{after:.2f}")
    table.caption = f"{tuned.trials} compositions tried; shares of exact matches"
    table.caption_justify = "left"
    return table


def named_directory(given: str) -> tuple[str, Path]:
    """`NAME=DIR` of the command line."""
    name, equals, directory = given.partition("=")
    if not equals or not Path(directory).is_dir():
        raise typer.BadParameter(f"--adapter {given}: write NAME=DIR, with a directory that exists")
    return check_name(name, "adapter"), Path(directory)
