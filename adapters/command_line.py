"""The `lora-compose` command: finds its sub-commands, and shows a refusal as one line.

Each sub-command is a row `name = "package.module:object"` of the entry-point group `lora_compose.commands`, a
`typer.Typer` or a function, so that this package need not import the others. A row's module is imported when
its command is asked for, or to list it in the help: such modules import what is slow inside their functions.

Options that several commands share: which server, which key, which registry, and output for machines.
"""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from lora_compose.adapters.errors import CommandCode, LoraComposeError

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


DISTRIBUTION = "lora-compose"
GROUP = "lora_compose.commands"
ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}

Command = TyperCommand | TyperGroup


class Subcommands(TyperGroup):
    """The rows of the entry-point group, imported one by one as they are needed."""

    @override
    def list_commands(self, ctx: object) -> list[str]:
        return sorted(_rows())

    @override
    def get_command(self, ctx: object, cmd_name: str) -> Command | None:
        rows = _rows()
        if cmd_name in rows:
            return load_command(rows[cmd_name])
        self.commands.update(dict.fromkeys(rows, self))  # the names that typer suggests for a typo
        return None


def _rows() -> dict[str, EntryPoint]:
    return {row.name: row for row in entry_points(group=GROUP)}


def load_command(row: EntryPoint) -> Command:
    """The command of one row; where its module cannot be imported, one that says why when it is run."""
    try:
        loaded = row.load()
    except ImportError as error:
        loaded = _unavailable(row.name, error)
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(row.name)(loaded)
        loaded = app
    command = typer.main.get_command(loaded)
    assert isinstance(command, Command)
    command.name = row.name
    return command


def _unavailable(name: str, error: ImportError) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command(name, help=f"Not available here: {error}", context_settings=ANY_ARGUMENTS)
    def unavailable() -> None:
        raise LoraComposeError(
            CommandCode.COMMAND_UNAVAILABLE, f"{name} cannot be loaded: {error}"
        ) from error

    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


def create_app() -> typer.Typer:
    """The command with its own options; sub-commands are looked up when it runs."""
    app = typer.Typer(
        name=DISTRIBUTION,
        cls=Subcommands,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        epilog="Start with `lora-compose serve`, then `lora-compose ask 'say table'` in another terminal.",
    )

    @app.callback()
    def options(
        shown: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        """Serve one base model and many LoRA adapters: stacked, merged, and weighted by each request."""

    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `arguments`, by default the process's own. A refusal is one line on stderr and exit code 1."""
    try:
        typer.main.get_command(create_app())(arguments, prog_name=DISTRIBUTION)
    except LoraComposeError as error:
        sys.exit(f"error: {error.message} ({error.code})")


if __name__ == "__main__":
    main()
