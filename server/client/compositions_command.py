"""`lora-compose compositions`: save, list and remove named compositions of a running server."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.names import check_name
from lora_compose.adapters.terminal import stdout
from lora_compose.server.client.http import Client, Json

app = typer.Typer(
    name="compositions",
    help="Save, list and remove named compositions of a running server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="The name of the saved composition.")]


@app.command()
def save(
    name: Name,
    composition: Annotated[str, typer.Argument(help="What it stands for.", metavar="COMPOSITION")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Save nothing. Show the rank, the error and the warnings.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Save a composition under a name. A merge is built in the background.

    Warnings say which members are likely to be lost, and which weights to try. They refuse nothing.

    - `lora-compose compositions save bot "sql:0.7+polite"`
    - `lora-compose compositions save bot "svd(sql+polite,rank=16)" --dry-run`
    """
    parse(composition, "composition")
    with Client(url, api_key) as client:
        found = client.predict(composition) if dry_run else client.save(check_name(name), composition)
    if as_json:
        echo_json(found)
        return
    typer.echo(_line(name, found))
    show_warnings(found.get("warnings", ()))


@app.command("list")
def list_compositions(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the saved compositions, what they stand for now, and whether their merges are built."""
    with Client(url, api_key) as client:
        found = client.compositions()
    if as_json:
        echo_json(found)
    elif found:
        stdout().print(composition_list(found))
    else:
        typer.echo(
            "No composition is saved. Save one with `lora-compose compositions save NAME COMPOSITION`."
        )


@app.command()
def remove(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Remove a saved composition. Its adapters stay."""
    with Client(url, api_key) as client:
        client.remove_composition(check_name(name))
    if as_json:
        echo_json({"removed": name})
    else:
        typer.echo(f"Removed {name}.")


def composition_list(found: Sequence[Json]) -> Table:
    """One row for each saved composition."""
    table = Table("name", "composition", "rank", "build", box=None, pad_edge=False)
    for row in found:
        rank = "-" if row["rank"] is None else str(row["rank"])
        table.add_row(escape(row["name"]), escape(row["model"]), rank, escape(_build(row["build"])))
    return table


def _build(build: Json) -> str:
    error = build.get("error")
    return str(build["state"]) if error is None else f"{build['state']}: {error['message']}"


def _line(name: str, found: Json) -> str:
    if found["name"] is None:
        return f"{found['resolved']}: rank {found['rank']}, error {found['error']}"
    return f"Saved {name} as {found['resolved']}, rank {found['rank']}, {_build(found['build'])}"


def show_warnings(warnings: Sequence[Json]) -> None:
    """Print the warnings of a composition to stderr."""
    for warning in warnings:
        typer.secho(f"Warning: {warning['message']}", err=True, fg="yellow")
        if warning["suggested"] is not None:
            typer.echo(f"  Try first: {warning['suggested']}", err=True)
