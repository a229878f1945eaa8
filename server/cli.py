"""The command `lora-compose serve`. It imports slow modules inside the function."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption
from typing_extensions import override

from lora_compose.adapters.dataclass_options import options_from
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.config import ServerConfig
from lora_compose.server.options.catalogue import OwnOption
from lora_compose.server.options.command_line import split
from lora_compose.server.options.environment import check_variables, take_key
from lora_compose.server.options.page import describe

serve_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
HINT = (
    "Try `lora-compose serve --help`, or `lora-compose serve --help=WORD` for vLLM's options with this word."
)
UsageError = typer.BadParameter.__base__


class ServeCommand(TyperCommand):
    """Reads vLLM's options too, and refuses a wrong option in two lines with exit code 2."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word in args:
            if word.startswith("--help="):
                typer.echo(describe(word.removeprefix("--help=")))
                raise typer.Exit
        if "--help" in args or "-h" in args:
            return super().parse_args(ctx, ["--help"])
        with wrong_options_in_two_lines():
            check_variables()
            line = split(args, self.own_options)
            super().parse_args(ctx, line.own)
        ctx.args = line.vllm
        return line.vllm

    @property
    def own_options(self) -> dict[str, OwnOption]:
        """The options of this command by name, the long flag without dashes."""
        options = [option for option in self.params if isinstance(option, TyperOption)]
        return {
            option.opts[0].removeprefix("--"): OwnOption(option.opts[0], not option.is_flag, option.multiple)
            for option in options
        }


@contextmanager
def wrong_options_in_two_lines() -> Iterator[None]:
    """Print an error about an option with `HINT`, and end with exit code 2."""
    try:
        yield
    except LoraComposeError as error:
        if error.code != CommandCode.INVALID_OPTION:
            raise
        message = error.message
    except UsageError as error:  # type: ignore[misc]
        message = error.format_message().replace("Value error, ", "")
    else:
        return
    typer.echo(f"error: {' '.join(message.split())} ({CommandCode.INVALID_OPTION})\n{HINT}", err=True)
    raise typer.Exit(2)


@serve_app.command(
    cls=ServeCommand,
    options_metavar="[MODEL] [OPTIONS]",
    epilog="`lora-compose serve --help=all` lists vLLM's options. docs/vllm-options.md has the same list.",
)
@options_from(ServerConfig)
def serve(context: typer.Context, config: ServerConfig) -> None:
    """Serve one base model and any number of LoRA adapters over the OpenAI API.

    Without options, the server uses the small base of this project and listens on this machine only.

    - `lora-compose serve`
    - `lora-compose serve org/model --adapter-root ./adapters --max-loras 8 --max-lora-rank 128`
    - `lora-compose serve --auto-fuse`

    **The options of `vllm serve` work too.** Useful ones:

    - `--max-loras`: number of adapters and compositions in use at the same time
    - `--max-lora-rank`: highest rank of an adapter; the rank of a stack is the sum of its members' ranks
    - `--max-cpu-loras`: number of adapters kept ready in host memory
    - `--served-model-name`: the names of the base in requests
    - `--dtype`, `--max-model-len`, `--tensor-parallel-size`
    - `--config FILE`: read options from a YAML file; the command line wins

    `--help=WORD` lists vLLM's options with WORD in their name.
    """
    if find_spec("vllm") is None:
        raise LoraComposeError(
            CommandCode.VLLM_MISSING, "vLLM is not installed. Install the extra `cpu` or `gpu`."
        )
    with wrong_options_in_two_lines():
        from lora_compose.server.serve import run

        run(replace(config, api_keys=(*config.api_keys, *take_key())), context.args)
