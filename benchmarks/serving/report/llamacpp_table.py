"""The table of our arms beside llama.cpp's."""

from rich.table import Table

from lora_compose.benchmarks.serving.results.beside import Beside
from lora_compose.benchmarks.statistics import Spread

TITLE = "Beside llama.cpp"
HEADERS = (
    *("load", "arm", "tokens/s", "llama.cpp's tokens/s", "ours / llama.cpp's (95 %)", "ours / our base's"),
    *("llama.cpp's / its base's", "longest TTFT s", "llama.cpp's longest TTFT s"),
)


def beside_cells(row: Beside) -> list[str]:
    """The values of one line, in the order of HEADERS."""
    exact = "" if row.ratio is None else f"{row.ratio.median:.2f} ({row.ratio.low:.2f}..{row.ratio.high:.2f})"
    speeds = [_value(speed, 0) for speed in (row.ours, row.llamacpp)]
    own = [_value(ratio, 2) for ratio in (row.own, row.llamacpp_own)]
    waits = [f"{row.longest_wait:.1f}", f"{row.llamacpp_longest_wait:.1f}"]
    return [row.cell.load, row.arm, *speeds, exact, *own, *waits]


def beside_table(rows: list[Beside]) -> Table:
    """The table for a terminal."""
    table = Table(title=TITLE, title_justify="left", box=None, pad_edge=False)
    for number, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*beside_cells(row))
    return table


def _value(value: Spread | None, decimals: int) -> str:
    return "" if value is None else f"{value.median:.{decimals}f}"
