"""`lora-compose adapters`: register, list, inspect, remove and alias adapters of a running server."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.admission.recognition import check_directory
from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.adapters.peft.files import MISSING
from lora_compose.adapters.terminal import stderr, stdout
from lora_compose.server.client import offline
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

Offline = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Read the registry in this directory instead of asking a server.", metavar="DIR"
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        help="With --data-dir: the directory of the base. Default: the base that was served last.",
        metavar="DIR",
    ),
]


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
        typer.Option(
            help="A Hugging Face repository, if the server allows it, or a directory in it.",
            metavar="ORG/REPO@REV:DIR",
        ),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="An alias for this version.")] = None,
    ttl_seconds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Remove this version after this time, unless something needs it.", metavar="SECONDS"
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Register an adapter: upload a directory, or name one that the server can read.

    The same files again are the same version. Other files become the next version of NAME.

    - `lora-compose adapters add sql ./out/sql-lora --alias prod`
    - `lora-compose adapters add sql --path /srv/adapters/sql`
    - `lora-compose adapters add sql --hf org/adapters:sql`
    """
    if sum(source is not None for source in (directory, path, hf)) != 1:
        raise typer.BadParameter("Give exactly one of DIRECTORY, --path and --hf.")
    fields: dict[str, Any] = {
        "name": check_name(name),
        "path": path,
        "hf": hf,
        "alias": alias and check_alias(alias),
    }
    fields |= {"ttl_seconds": ttl_seconds}
    body = {field: value for field, value in fields.items() if value is not None}
    with Client(url, api_key) as client:
        if directory is None:
            adapter = client.register(body)
        else:
            with _opened(directory) as files:
                adapter = client.upload({field: str(value) for field, value in body.items()}, files)
    _show(adapter, as_json)


app.command()(convert)


@app.command("list")
def list_adapters(
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    data_dir: Offline = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """List every version of every adapter. The newest version of a name comes first.

    A version that was registered for another base is not served. Its base is marked.

    - `lora-compose adapters list --data-dir /var/lib/lora-compose` needs no server
    """
    if data_dir is not None:
        adapters = offline.catalogue(data_dir, model)
    else:
        with Client(url, api_key) as client:
            adapters = client.adapters()
    if as_json:
        echo_json(adapters)
    elif adapters:
        stdout().print(adapter_list(adapters))
    else:
        typer.echo("No adapter is registered. Register one with `lora-compose adapters add NAME DIRECTORY`.")


@app.command()
def show(
    reference: Reference,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    data_dir: Offline = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Show the details of a version: its files, its base, the layers that it covers, warnings."""
    _check(reference)
    if data_dir is not None:
        _show(offline.adapter(data_dir, model, reference), as_json)
        return
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
        stdout().print(adapter_facts(adapter))


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
    console = stderr()
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
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
    columns = ["adapter", "rank", "size", "aliases", "registered", "source", "base"]
    columns += ["warnings"] if warned else []
    table = Table(*columns, box=None, pad_edge=False)
    for adapter in adapters:
        table.add_row(
            escape(adapter["id"]),
            str(adapter["rank"]),
            decimal(adapter["bytes"]),
            escape(", ".join(adapter["aliases"])),
            _when(adapter["created_at"]),
            escape(adapter["source"]),
            _base(adapter),
            *([", ".join(text.partition(":")[0] for text in adapter["warnings"])] if warned else []),
        )
    return table


def _base(adapter: Json) -> str:
    """The base, marked if the version is not served. Older servers do not say whether it is."""
    name = escape(PurePosixPath(adapter["base"]).name)
    if adapter.get("served", True) is not False:
        return name
    return f"[yellow]other: {name} {escape(adapter['base_fingerprint'][:12])}[/]"


FACTS = (
    *("id", "aliases", "rank", "parameters", "bytes", "created_at", "expires_at", "source", "base"),
    *("base_fingerprint", "served", "digest"),
)
TIMES = ("created_at", "expires_at")


def adapter_facts(adapter: Json) -> Table:
    """A table with one line a fact. Warnings come last."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for field in FACTS:
        if adapter.get(field) is not None:
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
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}.{index}", inner)
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value))
    elif prefix:
        yield prefix, round(value, 6) if isinstance(value, float) else value


def _shown(field: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and field in TIMES:
        return _when(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _when(seconds: float) -> str:
    """Date and time in the local time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
