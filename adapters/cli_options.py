"""Options that several commands share: which server, which key, which registry, and output for machines."""

import json
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

DEFAULT_URL = "http://127.0.0.1:8000"


def _check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url} does not begin with http:// or https://")
    return url


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LORA_COMPOSE_URL",
        help="Where the server listens.",
        metavar="URL",
        callback=_check_url,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="LORA_COMPOSE_API_KEY",
        help="The key to send, where the server wants one.",
        metavar="KEY",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Home of the registry; by default that of `lora-compose serve`.",
        metavar="DIR",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def default_data_dir() -> Path:
    """Where the registry is if nobody says otherwise: in the platform's user data directory."""
    return user_data_path("lora-compose")


def echo_json(value: object) -> None:
    """`value` on stdout as one indented JSON document."""
    typer.echo(json.dumps(value, indent=2))
