"""The commands of `lora-compose keys`: create, list, rotate and revoke API keys of a data directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.errors import CommandCode, NotFound
from lora_compose.adapters.names import check_name
from lora_compose.adapters.terminal import stdout
from lora_compose.server.tenants.key import EVERYTHING, Key, Quotas, Role

if TYPE_CHECKING:
    from lora_compose.server.tenants.key_store import KeyStore

app = typer.Typer(
    name="keys",
    help="Create, list, rotate and revoke API keys. They are stored in the data directory. A running server "
    "on this directory sees a change within one second.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
Name = Annotated[
    str, typer.Argument(help="Name of the key, for example its owner or its purpose.", metavar="NAME")
]


@app.command()
def create(
    name: Name,
    role: Annotated[
        str,
        typer.Option(
            help="`inference`: generate and read. `admin`: also register, remove and name adapters and "
            "compositions. `monitor`: read /metrics and /v1/models."
        ),
    ] = "inference",
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            help="An adapter that the key may see, or a prefix that ends in `*`. For this key, "
            "other adapters do not exist. An admin key with this option administers only these adapters. "
            "Repeatable. Default: all adapters.",
            metavar="NAME",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Quota: requests of any kind per minute.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Quota: prompt and answer tokens per minute.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=0, help="Quota: answers in progress at the same time.")
    ] = None,
    builds_per_hour: Annotated[
        int | None,
        typer.Option(min=0, help="Quota: merges built and adapters prepared or registered per hour."),
    ] = None,
    max_adapters: Annotated[
        int | None,
        typer.Option(min=0, help="Quota: versions registered under the names that the key may see."),
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="Quota: size of the files of these versions.", metavar="BYTES")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a key. The secret is printed only now; the server stores only its digest.

    - `lora-compose keys create ops --role admin`
    - `lora-compose keys create acme --adapters 'acme-*' --requests-per-minute 600 --in-flight 8`
    - `lora-compose keys create acme-ci --role admin --adapters 'acme-*' --max-adapters 50`
    - `lora-compose keys create prometheus --role monitor`
    """
    quotas = Quotas(
        requests_per_minute, tokens_per_minute, in_flight, builds_per_hour, max_adapters, max_bytes
    )
    checked: Role = role  # type: ignore[assignment]  # Key refuses other values
    key = Key("", name, checked, tuple(adapters or EVERYTHING), quotas)
    with _store(data_dir) as store:
        created, secret = store.create(key)
    _print_secret(created, secret, as_json)


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all keys with role, adapters and quotas. Secrets are not stored and not shown."""
    keys: list[Key] = []
    are_required = False
    with _existing(data_dir) as store:
        if store is not None:
            keys, are_required = list(store.by_digest().values()), store.are_required()
    if as_json:
        echo_json([asdict(key) for key in keys])
    elif keys:
        stdout().print(_table(keys))
    else:
        state = "There are no keys, and every request needs one" if are_required else "There are no keys"
        typer.echo(f"{state}. Create one: lora-compose keys create NAME --role admin", err=True)


@app.command()
def rotate(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a key a new secret. The old secret stops working within one second. Quotas and adapters stay."""
    with _existing(data_dir) as store:
        key, secret = _required(store, name).rotate(check_name(name))
    _print_secret(key, secret, as_json)


@app.command()
def revoke(name: Name, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Revoke a key. A running server refuses it within one second.

    After the last key is revoked, every request still needs a key, also after a restart. Create a new key, or
    accept requests without a key again with `lora-compose keys open`.
    """
    with _existing(data_dir) as found:
        store = _required(found, name)
        revoked = store.revoke(check_name(name))
        is_last = not store.by_digest()
    if as_json:
        echo_json({"revoked": revoked.name, "id": revoked.id, "was_last": is_last})
        return
    typer.echo(f"revoked {revoked.name} ({revoked.id})")
    if is_last:
        typer.echo(
            "This was the last key. Requests still need one: lora-compose keys create NAME --role admin. To "
            "accept requests without a key: lora-compose keys open",
            err=True,
        )


@app.command("open")
def open_server(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Accept requests without a key again, after all keys are revoked.

    This is for a server that listens on loopback addresses only. Every user of its machine may then use and
    administer it. A running server does so within one second. The next key that is created ends this.
    """
    with _existing(data_dir) as store:
        was_closed = store is not None and store.open()
    if as_json:
        echo_json({"was_closed": was_closed})
        return
    typer.echo("Requests need no key now." if was_closed else "Requests needed no key before, too.")


def _store(data_dir: Path | None) -> "KeyStore":
    from lora_compose.server.tenants.key_store import KeyStore

    return KeyStore(data_dir or default_data_dir())


@contextmanager
def _existing(data_dir: Path | None) -> "Iterator[KeyStore | None]":
    """The keys of a data directory; None if there is no registry, because reading must not make one."""
    from lora_compose.adapters.registry.store import DATABASE

    directory = data_dir or default_data_dir()
    if not (directory / DATABASE).is_file():
        typer.echo(f"There is no registry in {directory}.", err=True)
        yield None
        return
    with _store(data_dir) as store:
        yield store


def _required(store: "KeyStore | None", name: str) -> "KeyStore":
    if store is None:
        raise NotFound(CommandCode.KEY_NOT_FOUND, f"The key {name!r:.80} does not exist.", "name")
    return store


def _print_secret(key: Key, secret: str, as_json: bool) -> None:
    if as_json:
        echo_json({**asdict(key), "secret": secret})
        return
    typer.echo(
        f"{key.name} ({key.id}), role {key.role}, adapters {', '.join(key.adapters)}. Keep this secret:",
        err=True,
    )
    typer.echo(secret)
    typer.echo(
        "Commands send it with --api-key or LORA_COMPOSE_API_KEY, OpenAI clients with api_key, and others in "
        "the header 'authorization: Bearer SECRET'. A server on this directory requires a key from now on.",
        err=True,
    )


def _table(keys: list[Key]) -> Table:
    table = Table(box=None, pad_edge=False)
    for header in ("name", "role", "adapters", "quotas", "id"):
        table.add_column(header)
    for key in keys:
        bounds = [f"{name} {value}" for name, value in asdict(key.quotas).items() if value is not None]
        table.add_row(key.name, key.role, ", ".join(key.adapters), ", ".join(bounds) or "none", key.id)
    return table
