"""A plan for people to read: the parts, the cards, sequence length against batch, and the advice."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from training.planning.advice import advise, fits
from training.planning.devices import CARDS
from training.planning.memory import GIB, Memory, memory_of, trained_parameters
from training.planning.settings import Settings
from training.planning.shapes import ModelShape

SEQ_LENS: Final = (512, 1024, 2048, 4096, 8192)
BATCHES: Final = (1, 2, 4, 8)
COLOURS: Final = {"yes": "green", "tight": "yellow", "no": "red"}


def plan_view(name: str, shape: ModelShape, settings: Settings) -> Group:
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


def _title(name: str, shape: ModelShape, settings: Settings) -> str:
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


def grid(shape: ModelShape, settings: Settings) -> list[tuple[int, int, Memory]]:
    """(seq_len, batch, memory) for every length and batch of the table."""
    pairs = [(seq_len, batch) for seq_len in SEQ_LENS for batch in BATCHES]
    return [(s, b, memory_of(shape, replace(settings, seq_len=s, batch=b))) for s, b in pairs]


def grid_table(shape: ModelShape, settings: Settings) -> Table:
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
