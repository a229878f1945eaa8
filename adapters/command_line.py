"""The `lora-compose` command, and the options that several sub-commands share.

Each sub-command is an entry point `name = "package.module:object"` in the group `lora_compose.commands`. The
object is a `typer.Typer` or a function. In this way the package does not import the other packages. The
module of an entry point is imported when its command runs or is listed in the help, so these modules import
slow libraries inside functions. An error is shown as one line.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from lora_compose.adapters.errors import Code, CommandCode, LoraComposeError

DEFAULT_URL = "http://127.0.0.1:8000"


def _check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url} must begin with http:// or https://")
    return server_root(url)


def server_root(url: str) -> str:
    """The address of a server without `/v1`, which OpenAI clients need at its end."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LORA_COMPOSE_URL",
        help="Address of the server.",
        metavar="URL",
        callback=_check_url,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="LORA_COMPOSE_API_KEY",
        help="API key to send, if the server requires one.",
        metavar="KEY",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Directory of the registry. The default is the one that `lora-compose serve` uses.",
        metavar="DIR",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def default_data_dir() -> Path:
    """The default directory of the registry: it is in the platform's user data directory.

    A user without a home directory gets one below the current directory."""
    try:
        return user_data_path("lora-compose")
    except RuntimeError:
        return Path("lora-compose-data")


def echo_json(value: object) -> None:
    """Print `value` on stdout as one indented JSON document."""
    typer.echo(json.dumps(value, indent=2))


DISTRIBUTION = "lora-compose"
GROUP = "lora_compose.commands"
ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}

Command = TyperCommand | TyperGroup


class Subcommands(TyperGroup):
    """The sub-commands of the entry-point group. Each is imported only when it is needed."""

    @override
    def list_commands(self, ctx: object) -> list[str]:
        return sorted(_entry_points())

    @override
    def get_command(self, ctx: object, cmd_name: str) -> Command | None:
        known = _entry_points()
        if cmd_name in known:
            return load_command(known[cmd_name])
        self.commands.update(dict.fromkeys(known, self))  # typer suggests one of these names for a typo
        return None


def _entry_points() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def load_command(entry_point: EntryPoint) -> Command:
    """The command of one entry point. If its module cannot be imported, the command fails with the reason."""
    try:
        loaded = entry_point.load()
    except ImportError as error:
        loaded = _unavailable(entry_point.name, error)
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(entry_point.name)(loaded)
        loaded = app
    command = typer.main.get_command(loaded)
    assert isinstance(command, Command)
    command.name = entry_point.name
    _hide_type_of_flags(command)
    return command


def _hide_type_of_flags(command: Command) -> None:
    """Typer's help shows the type of an option that takes no value."""
    help_option = command.get_help_option(typer.Context(command))
    for parameter in (*command.params, help_option):
        if parameter is not None and getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for inner in command.commands.values() if isinstance(command, TyperGroup) else ():
        assert isinstance(inner, Command)
        _hide_type_of_flags(inner)


def _unavailable(name: str, error: ImportError) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command(name, help=f"Not available in this installation: {error}", context_settings=ANY_ARGUMENTS)
    def unavailable() -> None:
        raise LoraComposeError(
            CommandCode.COMMAND_UNAVAILABLE, f"The command {name} cannot be loaded: {error}"
        ) from error

    return app


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


def create_app() -> typer.Typer:
    """The `lora-compose` command with its own options. Sub-commands are looked up when it runs."""
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
        version_shown: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        """Serve one base model and many LoRA adapters. Each request chooses adapters and weights."""

    return app


NEXT: Mapping[str, str] = {
    Code.MODEL_NOT_FOUND: "`lora-compose adapters list` shows all adapters.",
    Code.COMPOSITION_NOT_FOUND: "`curl URL/v1/compositions` shows the saved compositions.",
    Code.MISSING_DENSITY: "Use --density 0.5, or write it into the composition: 'ties(a+b,density=0.5)'.",
    Code.IN_USE: "To remove these compositions too, use `lora-compose adapters remove NAME --cascade`.",
    Code.INVALID_API_KEY: "Set LORA_COMPOSE_API_KEY or use --api-key. On the server's machine, "
    "`lora-compose keys create NAME` makes a key.",
    Code.RANK_TOO_LARGE: "A merge needs less rank, for example 'svd(a+b,rank=16)'.",
}
"""What to do next, by the code of an error."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `arguments`, by default those of the process.

    An error is one line on stderr, and perhaps a second one with the next command. The exit code is 1.
    """
    try:
        command = typer.main.get_command(create_app())
        assert isinstance(command, Command)
        _hide_type_of_flags(command)
        command(arguments, prog_name=DISTRIBUTION)
    except LoraComposeError as error:
        next_command = f"\n{NEXT[error.code]}" if error.code in NEXT else ""
        sys.exit(f"error: {error.message} ({error.code}){next_command}")


if __name__ == "__main__":
    main()
