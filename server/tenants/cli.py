"""`lora-compose keys`: make, list, rotate and revoke API keys, beside a server that runs or not."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.names import check_name
from lora_compose.server.tenants.key import EVERYTHING, Key, Quotas, Role

if TYPE_CHECKING:
    from lora_compose.server.tenants.key_store import KeyStore

app = typer.Typer(
    name="keys",
    help="Make, list, rotate and revoke API keys. They are the data directory's: a server that runs on it "
    "sees a change within a second.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
Name = Annotated[str, typer.Argument(help="Whose it is, or what for.", metavar="NAME")]


@app.command()
def create(
    name: Name,
    role: Annotated[
        str,
        typer.Option(
            help="`inference` asks; `admin` also registers, removes and names; `monitor` reads /metrics."
        ),
    ] = "inference",
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            help="An adapter it may see, or a prefix that ends in `*`; all others do not exist for it. An "
            "admin key with any is admin of these only. Repeatable; by default everything.",
            metavar="NAME",
        ),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="Requests of any kind.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=0, help="Of prompts and answers.")] = None,
    in_flight: Annotated[int | None, typer.Option(min=0, help="Requests at a time.")] = None,
    builds_per_hour: Annotated[
        int | None, typer.Option(min=0, help="Merges built and adapters prepared.")
    ] = None,
    max_adapters: Annotated[
        int | None, typer.Option(min=0, help="Versions registered under names it sees.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(min=0, help="Of their files.", metavar="BYTES")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown this once, and only its digest is kept.

    - `lora-compose keys create ops --role admin`
    - `lora-compose keys create acme --adapters 'acme-*' --requests-per-minute 600 --in-flight 8`
    - `lora-compose keys create acme-ci --role admin --adapters 'acme-*' --max-adapters 50`
    - `lora-compose keys create prometheus --role monitor`
    """
    quotas = Quotas(
        requests_per_minute, tokens_per_minute, in_flight, builds_per_hour, max_adapters, max_bytes
    )
    asked: Role = role  # type: ignore[assignment]  # Key refuses any other
    key = Key("", name, asked, tuple(adapters or EVERYTHING), quotas)
    with _store(data_dir) as store:
        made, secret = store.create(key)
    _tell(made, secret, as_json)


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List every key: role, adapters and quotas, never the secret."""
    with _store(data_dir) as store:
        keys = list(store.by_digest().values())
    if as_json:
        echo_json([asdict(key) for key in keys])
    elif keys:
        Console().print(_table(keys))
    else:
        typer.echo("There are no keys. Make one: lora-compose keys create NAME --role admin", err=True)


@app.command()
def rotate(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a key another secret; the one before ends within a second. Quotas and adapters stay."""
    with _store(data_dir) as store:
        key, secret = store.rotate(check_name(name))
    _tell(key, secret, as_json)


@app.command()
def revoke(name: Name, data_dir: DataDir = None) -> None:
    """End a key. A server that had any stays closed, even when it was the last."""
    with _store(data_dir) as store:
        gone = store.revoke(check_name(name))
    typer.echo(f"revoked {gone.name} ({gone.id})")


def _store(data_dir: Path | None) -> "KeyStore":
    from lora_compose.server.tenants.key_store import KeyStore

    return KeyStore(data_dir or default_data_dir())


def _tell(key: Key, secret: str, as_json: bool) -> None:
    if as_json:
        echo_json({**asdict(key), "secret": secret})
        return
    typer.echo(f"{key.name} ({key.id}), {key.role} of {', '.join(key.adapters)}. Keep the secret:", err=True)
    typer.echo(secret)


def _table(keys: list[Key]) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("name", "role", "adapters", "quotas", "id"):
        table.add_column(header)
    for key in keys:
        bounds = [f"{name} {value}" for name, value in asdict(key.quotas).items() if value is not None]
        table.add_row(key.name, key.role, ", ".join(key.adapters), ", ".join(bounds) or "none", key.id)
    return table
