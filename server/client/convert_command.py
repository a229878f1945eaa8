"""`lora-compose adapters convert`: make a LoRA of an adapter of another kind. It needs no server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, echo_json

if TYPE_CHECKING:
    from lora_compose.adapters.convert import Conversion

SERVED_RANK = 64
"""--max-lora-rank of `lora-compose serve` by default."""


def convert(
    directory: Annotated[
        Path,
        typer.Argument(help="The PEFT directory to convert.", exists=True, file_okay=False, metavar="DIR"),
    ],
    output: Annotated[Path, typer.Argument(help="The PEFT directory to write.", metavar="OUT")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The base that the adapter was trained on: a directory or a hub id. By default, the one "
            "that the adapter's config names.",
            metavar="BASE",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="The rank of every module of the LoRA.", show_default=False)
    ] = None,
    energy: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            help="Without --rank: each module gets the smallest rank that keeps this part of its squared "
            "singular values. 0.999 keeps the relative error below 3.2 %.",
        ),
    ] = 0.999,
    force: Annotated[bool, typer.Option("--force", help="Replace the adapter that is in OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert an adapter of another kind to LoRA, and report the error. This needs no server.

    The server serves LoRA. PEFT can convert the kinds that add a matrix to each weight: C3A, DeLoRA,
    FourierFT, GraLoRA, LoHa, LoKr, MiSS, PSOFT, RandLoRA, TinyLoRA, UniLoRA, VB-LoRA, VeRA and WaveFT. The
    result is the closest LoRA of its rank. The error is ‖Δ − B·A‖ / ‖Δ‖ for the delta Δ of each module.

    - `lora-compose adapters convert ./my-loha ./my-lora --model org/model` keeps 99.9 % of each delta
    - `lora-compose adapters convert ./my-loha ./my-lora --rank 16` has one rank, and loses more
    - `lora-compose adapters add my-lora ./my-lora` registers the result

    A LoRA in `adapter_model.bin` is written as safetensors, without a base and without loss. Only tensors are
    unpickled.
    """
    from lora_compose.adapters.convert import convert as converted

    screen = Console(stderr=True)
    found = converted(directory, output, model, rank or energy, force, screen.is_terminal)
    if as_json:
        echo_json(found.to_dict() | {"directory": str(output)})
        return
    if found.modules:
        Console().print(_table(found))
    _say_next(found, output)


def _table(found: "Conversion") -> Table:
    table = Table("module", "rank", "relative error", box=None, pad_edge=False)
    for module in found.modules:
        table.add_row(module.name, str(module.rank), f"{module.error:.2e}")
    table.add_section()
    table.add_row(f"all {len(found.modules)} modules", f"at most {found.rank}", f"{found.error:.2e}")
    return table


def _say_next(found: "Conversion", output: Path) -> None:
    typer.echo(f"Wrote a LoRA of the {found.kind} adapter to {output}")
    if found.rank > SERVED_RANK:
        typer.echo(
            f"Its rank is {found.rank}: start `lora-compose serve` with a --max-lora-rank that is not lower."
        )
    typer.echo(f"Register it with `lora-compose adapters add NAME {output}`")
