"""`lora-compose train plan`: the memory training takes, and which cards have it, before anything is run.

A plan for people to read: the parts, the cards, sequence length against batch, and the advice.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.training.planning.advice import advise, fits
from lora_compose.training.planning.architectures import ModelShape
from lora_compose.training.planning.devices import CARDS
from lora_compose.training.planning.memory import GIB, Memory, memory_of, trained_parameters
from lora_compose.training.planning.models import KNOWN_MODELS
from lora_compose.training.planning.settings import (
    ALL_LINEAR,
    OPTIMIZERS,
    Attention,
    DType,
    Method,
    PlanSettings,
)

SEQ_LENS: Final = (512, 1024, 2048, 4096, 8192)
BATCHES: Final = (1, 2, 4, 8)
COLOURS: Final = {"yes": "green", "tight": "yellow", "no": "red"}


def plan_view(name: str, shape: ModelShape, settings: PlanSettings) -> Group:
    """Everything, top to bottom."""
    memory = memory_of(shape, settings)
    return Group(
        _title(name, shape, settings),
        "",
        _parts(memory),
        "",
        _cards(memory),
        "",
        grid_table(shape, settings),
        "",
        *(f"- {escape(line)}" for line in advise(shape, settings)),
    )


def _title(name: str, shape: ModelShape, settings: PlanSettings) -> str:
    trained, _ = trained_parameters(shape, settings)
    counts = f"{shape.parameters:,} parameters, {trained:,} trained by {settings.method}"
    return f"[bold]{escape(name)}[/]: {counts}; sequences of {settings.seq_len}, batch {settings.batch}"


def _parts(memory: Memory) -> Table:
    table = Table("part", box=None, pad_edge=False)
    table.add_column("GiB", justify="right")
    for part, size in memory.parts().items():
        table.add_row(part.replace("_", " "), f"{size / GIB:.2f}")
    table.add_row("[bold]total[/]", f"[bold]{memory.total / GIB:.2f}[/]")
    return table


def _cards(memory: Memory) -> Table:
    table = Table("sold as", "card", box=None, pad_edge=False)
    table.add_column("usable GiB", justify="right")
    table.add_column("spare", justify="right")
    table.add_column("fits")
    for fit in fits(memory):
        verdict = f"[{COLOURS[fit.verdict]}]{fit.verdict}[/]"
        usable, spare = f"{fit.card.usable:.1f}", f"{fit.spare:.1f}"
        table.add_row(f"{fit.card.sold_gb} GB", fit.card.names, usable, spare, verdict)
    return table


def grid(shape: ModelShape, settings: PlanSettings) -> list[tuple[int, int, Memory]]:
    """(seq_len, batch, memory) for every length and batch of the table."""
    pairs = [(seq_len, batch) for seq_len in SEQ_LENS for batch in BATCHES]
    return [(s, b, memory_of(shape, replace(settings, seq_len=s, batch=b))) for s, b in pairs]


def grid_table(shape: ModelShape, settings: PlanSettings) -> Table:
    """GiB in all, and the smallest size of card that holds them."""
    table = Table(
        "sequence", title="GiB, and the smallest card", title_justify="left", box=None, pad_edge=False
    )
    for batch in BATCHES:
        table.add_column(f"batch {batch}", justify="right")
    cells = grid(shape, settings)
    for seq_len in SEQ_LENS:
        table.add_row(str(seq_len), *(_cell(memory) for s, _, memory in cells if s == seq_len))
    return table


def _cell(memory: Memory) -> str:
    return f"{memory.total / GIB:.1f} ({smallest_card(memory)})"


def smallest_card(memory: Memory) -> str:
    """The size that every card sold as it can hold, such as `48 GB`; `-` where there is none."""
    sizes: dict[int, Sequence[float]] = {}
    for card in CARDS:
        sizes[card.sold_gb] = [*sizes.get(card.sold_gb, ()), card.usable]
    held = (sold for sold, usable in sizes.items() if memory.total / GIB <= min(usable))
    return next((f"{sold} GB" for sold in held), "-")


DEFAULTS = PlanSettings()


def plan(
    model: Annotated[
        str, typer.Option(help=f"A model directory, a config.json, a hub id, or {', '.join(KNOWN_MODELS)}.")
    ],
    method: Annotated[
        Method, typer.Option(help="What is trained, and how the base is held.")
    ] = DEFAULTS.method,
    seq_len: Annotated[int, typer.Option(help="Tokens a row.")] = DEFAULTS.seq_len,
    batch: Annotated[int, typer.Option(help="Rows a step on one card.")] = DEFAULTS.batch,
    rank: Annotated[int, typer.Option("--rank", "--r", help="Rank of the adapter.")] = DEFAULTS.rank,
    target_modules: Annotated[str, typer.Option(help="Layers that are adapted, by commas.")] = ALL_LINEAR,
    lora_dropout: Annotated[float, typer.Option(help="Any at all keeps a copy of each input.")] = 0.0,
    optimizer: Annotated[str, typer.Option("--optimizer", "--optim", help=", ".join(OPTIMIZERS))] = (
        DEFAULTS.optimizer
    ),
    gradient_checkpointing: Annotated[bool, typer.Option(help="Compute each block's forward twice.")] = True,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Of weights that are not quantized; float32 for full, else bfloat16.", show_default=False
        ),
    ] = None,
    compute_dtype: Annotated[DType, typer.Option(help="Of the arithmetic.")] = DEFAULTS.compute_dtype,
    double_quant: Annotated[bool, typer.Option(help="Quantize the quantization constants too.")] = True,
    attention: Annotated[Attention, typer.Option(help="eager keeps all probabilities.")] = DEFAULTS.attention,
    full_logits: Annotated[
        bool, typer.Option("--full-logits", help="A loss over all logits at once; TRL's works in tiles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how much memory a training step needs, from the model's config alone, and which GPUs have it.

    - `lora-compose train plan --model llama-3-70b` QLoRA of 70B: 48 GB, and never one card of 24 GB
    - `lora-compose train plan --model llama-3-8b --method lora --seq-len 4096 --batch 2`
    - `lora-compose train plan --model ./my-model --method full --optimizer paged_adamw_8bit --json`

    Nothing is downloaded but the config of a hub id, and nothing is built. docs/planning.md has the formulas,
    and how far they are from memory that was measured.
    """
    settings = PlanSettings(
        method=method,
        seq_len=seq_len,
        batch=batch,
        rank=rank,
        target_modules=tuple(name.strip() for name in target_modules.split(",")),
        lora_dropout=lora_dropout,
        optimizer=optimizer,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
        compute_dtype=compute_dtype,
        double_quant=double_quant,
        attention=attention,
        full_logits=full_logits,
    )
    _show(model, settings, as_json)


def _show(model: str, settings: PlanSettings, as_json: bool) -> None:
    from lora_compose.training.planning.models import read_shape

    screen = Console(stderr=True)
    with screen.status("reading the config"):
        shape = read_shape(model)
    if as_json:
        echo_json(plan_facts(model, settings))
        return
    Console().print(plan_view(model, shape, settings))


def plan_facts(model: str, settings: PlanSettings) -> dict[str, Any]:
    """What `--json` prints: bytes by part, the cards, the grid and the advice."""
    from lora_compose.training.planning.advice import advise, fits
    from lora_compose.training.planning.memory import memory_of, trained_parameters
    from lora_compose.training.planning.models import read_shape

    shape = read_shape(model)
    memory = memory_of(shape, settings)
    return {
        "model": model,
        "model_type": shape.model_type,
        "parameters": shape.parameters,
        "trained_parameters": trained_parameters(shape, settings)[0],
        "settings": asdict(settings),
        "bytes": memory.parts() | {"total": memory.total},
        "cards": [
            asdict(fit.card) | {"spare": round(fit.spare, 2), "fits": fit.verdict} for fit in fits(memory)
        ],
        "grid": [{"seq_len": s, "batch": b, "total": m.total} for s, b, m in grid(shape, settings)],
        "advice": advise(shape, settings),
    }


app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.command("plan")(plan)

if __name__ == "__main__":
    app()
