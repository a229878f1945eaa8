"""`lora-compose adapters`: register, list, inspect, remove and alias adapters of a running server."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.admission.recognition import check_directory
from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.adapters.peft.files import MISSING
from lora_compose.server.client.convert_command import convert
from lora_compose.server.client.http import Client, Json

app = typer.Typer(
    name="adapters",
    help="Register, list, inspect, remove and alias adapters of a running server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Reference = Annotated[str, typer.Argument(help="`name`, `name@2` or `name@alias`.", metavar="NAME[@VERSION]")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name for requests to use.")],
    directory: Annotated[
        Path | None, typer.Argument(help="A PEFT directory on this machine to upload.", show_default=False)
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="A directory on the server, inside an --adapter-root of the server.", metavar="DIR"
        ),
    ] = None,
    hf: Annotated[
        str | None,
        typer.Option(help="A Hugging Face repository, if the server allows it.", metavar="ORG/REPO@REV"),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="An alias for this version.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Register an adapter: upload a directory, or name one that the server can read.

    The same files again are the same version. Other files become the next version of NAME.

    - `lora-compose adapters add sql ./out/sql-lora --alias prod`
    - `lora-compose adapters add sql --path /srv/adapters/sql`
    """
    if sum(source is not None for source in (directory, path, hf)) != 1:
        raise typer.BadParameter("Give exactly one of DIRECTORY, --path and --hf.")
    fields = {"name": check_name(name), "path": path, "hf": hf, "alias": alias and check_alias(alias)}
    body = {field: value for field, value in fields.items() if value is not None}
    with Client(url, api_key) as client:
        if directory is None:
            adapter = client.register(body)
        else:
            with _opened(directory) as files:
                adapter = client.upload(body, files)
    _show(adapter, as_json)


app.command()(convert)


@app.command("list")
def list_adapters(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List every version of every adapter. The newest version of a name comes first."""
    with Client(url, api_key) as client:
        adapters = client.adapters()
    if as_json:
        echo_json(adapters)
    elif adapters:
        Console().print(adapter_list(adapters))
    else:
        typer.echo("No adapter is registered. Register one with `lora-compose adapters add NAME DIRECTORY`.")


@app.command()
def show(
    reference: Reference, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show the details of a version: its files, the layers that it covers, warnings."""
    _check(reference)
    with Client(url, api_key) as client:
        _show(client.adapter(reference), as_json)


@app.command()
def remove(
    reference: Reference,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also remove the saved compositions that use it.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Remove a version, or with NAME alone all of its versions. Requests in flight finish first."""
    _check(reference)
    with Client(url, api_key) as client:
        client.remove(reference, cascade)
    _report_removed(reference, as_json)


@app.command()
def alias(
    reference: Reference,
    alias: Annotated[str, typer.Argument(help="The alias, such as `prod`.")],
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias instead.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make `NAME@ALIAS` an alias of a version. To roll back, set it to the old version.

    - `lora-compose adapters alias sql@2 prod`
    """
    name, _ = _check(reference)
    with Client(url, api_key) as client:
        if not delete:
            version = client.adapter(reference)["version"]
            _show(client.set_alias(name, check_alias(alias), version), as_json)
            return
        client.remove_alias(name, check_alias(alias))
    _report_removed(f"{name}@{alias}", as_json)


def _check(reference: str) -> tuple[str, str | None]:
    """(name, ref). Raises InvalidRequest before the reference becomes part of a URL."""
    return parse_reference(reference, "name")


def _report_removed(reference: str, as_json: bool) -> None:
    if as_json:
        echo_json({"removed": reference})
    else:
        typer.echo(f"Removed {reference}.")


def _show(adapter: Json, as_json: bool) -> None:
    if as_json:
        echo_json(adapter)
    else:
        Console().print(adapter_facts(adapter))


def _check_files(directory: Path) -> None:
    """Raises AdapterRejected with what the directory has instead, if one of the two files is not there."""
    try:
        check_directory(directory)
    except OSError as error:
        raise AdapterRejected(
            Code.MISSING_CONFIG, f"{directory}: {error.strerror}. Give a PEFT directory.", "directory"
        ) from error


@contextmanager
def _opened(directory: Path) -> Iterator[dict[str, BinaryIO]]:
    """The two files of a PEFT directory. A bar on stderr shows how much of them is read."""
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    screen = Console(stderr=True)
    bars = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    with bars as progress, ExitStack() as stack:
        _check_files(directory)
        files: dict[str, BinaryIO] = {}
        for name, code in MISSING.items():
            try:
                file = progress.open(directory / name, "rb", description=name)
            except OSError as error:
                raise AdapterRejected(code, f"{directory / name}: {error.strerror}", "directory") from error
            files[name] = stack.enter_context(file)
        yield files


def adapter_list(adapters: Sequence[Json]) -> Table:
    """A table with one line a version, in the given order. Warnings have a column if there are any."""
    warned = any(adapter["warnings"] for adapter in adapters)
    columns = (
        "adapter",
        "rank",
        "size",
        "aliases",
        "registered",
        "source",
        *(["warnings"] if warned else []),
    )
    table = Table(*columns, box=None, pad_edge=False)
    for adapter in adapters:
        table.add_row(
            escape(adapter["id"]),
            str(adapter["rank"]),
            decimal(adapter["bytes"]),
            escape(", ".join(adapter["aliases"])),
            _when(adapter["created_at"]),
            escape(adapter["source"]),
            *([", ".join(text.partition(":")[0] for text in adapter["warnings"])] if warned else []),
        )
    return table


def adapter_facts(adapter: Json) -> Table:
    """A table with one line a fact. Warnings come last."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for field in ("id", "aliases", "rank", "parameters", "bytes", "created_at", "source", "base", "digest"):
        table.add_row(field, escape(_shown(field, adapter[field])))
    for field, value in adapter["coverage"].items():
        table.add_row(field, escape(_shown(field, value)))
    for field, value in _flat("", adapter.get("lineage", {})):
        table.add_row(f"[dim]{escape(field)}[/]", escape(str(value)))
    for warning in adapter["warnings"]:
        table.add_row("[yellow]warning[/]", escape(warning))
    return table


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """The leaf values of a lineage, with dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif prefix:
        yield prefix, round(value, 6) if isinstance(value, float) else value


def _shown(field: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and field == "created_at":
        return _when(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _when(seconds: float) -> str:
    """Date and time in the local time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
