"""`lora-compose train plan`: the memory that training needs, and the cards that have enough, without a run.

The output is a table of the parts, a table of cards, a table of sequence length against batch size, and
advice.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.terminal import status, stdout
from lora_compose.training.planning.advice import advise, fits
from lora_compose.training.planning.devices import CARDS
from lora_compose.training.planning.memory import GIB, Memory, memory_of, trained_parameters
from lora_compose.training.planning.mixtures import EXPERTS_STAY, NOT_QUANTIZED
from lora_compose.training.planning.models import KNOWN_MODELS
from lora_compose.training.planning.settings import (
    ALL_LINEAR,
    OPTIMIZERS,
    Attention,
    DType,
    Method,
    PlanSettings,
)
from lora_compose.training.planning.shapes import ModelShape

SEQ_LENS: Final = (512, 1024, 2048, 4096, 8192, 32768)
BATCHES: Final = (1, 2, 4, 8)
COLOURS: Final = {"yes": "green", "tight": "yellow", "no": "red"}


def plan_view(name: str, shape: ModelShape, settings: PlanSettings) -> Group:
    """The whole output."""
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
        *(f"- {escape(line)}" for line in (*notes(shape, settings), *advise(shape, settings))),
    )


def notes(shape: ModelShape, settings: PlanSettings) -> list[str]:
    """What the plan takes for granted about this model and method."""
    of_adapters = {EXPERTS_STAY} if settings.method == "full" else set()
    of_quantization = set() if settings.method == "qlora" else {NOT_QUANTIZED}
    return [note for note in shape.notes if note not in of_adapters | of_quantization]


def _title(name: str, shape: ModelShape, settings: PlanSettings) -> str:
    trained, _ = trained_parameters(shape, settings)
    counts = f"{shape.parameters:,} parameters, {trained:,} trained with {settings.method}"
    return f"[bold]{escape(name)}[/]: {counts}; sequence length {settings.seq_len}, batch {settings.batch}"


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
    table.add_column("free GiB", justify="right")
    table.add_column("fits")
    for fit in fits(memory):
        verdict = f"[{COLOURS[fit.verdict]}]{fit.verdict}[/]"
        usable, spare = f"{fit.card.usable:.1f}", f"{fit.spare:.1f}"
        table.add_row(f"{fit.card.sold_gb} GB", fit.card.names, usable, spare, verdict)
    return table


def grid(shape: ModelShape, settings: PlanSettings) -> list[tuple[int, int, Memory]]:
    """(seq_len, batch, memory) for every cell of the table."""
    pairs = [(seq_len, batch) for seq_len in SEQ_LENS for batch in BATCHES]
    return [(s, b, memory_of(shape, replace(settings, seq_len=s, batch=b))) for s, b in pairs]


def grid_table(shape: ModelShape, settings: PlanSettings) -> Table:
    """The total GiB, and the smallest size of card that is large enough."""
    table = Table(
        "sequence",
        title="Total GiB, and the smallest card that fits",
        title_justify="left",
        box=None,
        pad_edge=False,
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
    """The smallest size, such as `48 GB`, whose cards are all large enough; `-` if no card is."""
    sizes: dict[int, Sequence[float]] = {}
    for card in CARDS:
        sizes[card.sold_gb] = [*sizes.get(card.sold_gb, ()), card.usable]
    large_enough = (sold for sold, usable in sizes.items() if memory.total / GIB <= min(usable))
    return next((f"{sold} GB" for sold in large_enough), "-")


DEFAULTS = PlanSettings()


def plan(
    model: Annotated[
        str, typer.Option(help=f"A model directory, a config.json, a hub id, or {', '.join(KNOWN_MODELS)}.")
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="full: all weights. lora: an adapter. qlora: an adapter on a base quantized to 4 bits."
        ),
    ] = DEFAULTS.method,
    seq_len: Annotated[int, typer.Option(help="Tokens in a row.")] = DEFAULTS.seq_len,
    batch: Annotated[int, typer.Option(help="Rows in a step on one card.")] = DEFAULTS.batch,
    rank: Annotated[int, typer.Option("--rank", "--r", help="Rank of the adapter.")] = DEFAULTS.rank,
    target_modules: Annotated[
        str, typer.Option(help="Layers with an adapter, separated by commas.")
    ] = ALL_LINEAR,
    lora_dropout: Annotated[
        float,
        typer.Option(help="Dropout of the adapter. Above 0, each adapted layer keeps a copy of its input."),
    ] = 0.0,
    optimizer: Annotated[
        str, typer.Option("--optimizer", "--optim", help=f"One of {', '.join(OPTIMIZERS)}.")
    ] = DEFAULTS.optimizer,
    gradient_checkpointing: Annotated[
        bool, typer.Option(help="Save memory by computing each block's forward pass twice.")
    ] = True,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Type of weights that are not quantized; by default float32 for full, otherwise bfloat16.",
            show_default=False,
        ),
    ] = None,
    compute_dtype: Annotated[DType, typer.Option(help="Type of the arithmetic.")] = DEFAULTS.compute_dtype,
    double_quant: Annotated[bool, typer.Option(help="Also quantize the quantization constants.")] = True,
    attention: Annotated[
        Attention, typer.Option(help="Attention implementation. eager keeps all attention probabilities.")
    ] = DEFAULTS.attention,
    full_logits: Annotated[
        bool,
        typer.Option(
            "--full-logits", help="Plan for a loss over all logits at once. TRL computes it in tiles."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how much memory a training step needs, and which GPUs have enough, from the model's config alone.

    No model is built. For a hub id, only its config is downloaded. docs/planning.md has the formulas and
    compares them with measured memory.

    - `lora-compose train plan --model llama-3-70b`
    - `lora-compose train plan --model llama-3-8b --method lora --seq-len 4096 --batch 2`
    - `lora-compose train plan --model ./my-model --method full --optimizer paged_adamw_8bit --json`
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

    with status("reading the config"):
        shape = read_shape(model)
    if as_json:
        echo_json(plan_facts(model, settings))
        return
    stdout().print(plan_view(model, shape, settings))


def plan_facts(model: str, settings: PlanSettings) -> dict[str, Any]:
    """The values that `--json` prints: bytes by part, the cards, the grid and the advice."""
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
        "notes": notes(shape, settings),
        "advice": advise(shape, settings),
    }


app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.command("plan")(plan)

if __name__ == "__main__":
    app()
