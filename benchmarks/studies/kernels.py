"""What kernel timings mean: rates, shares of the machine's, a table, a heat map; made from JSON only.

`python -m lora_compose.benchmarks.studies.kernels`: the CPU LoRA kernels by themselves, against what the machine can do.

The kernels are the server's, so a child process times them (`lora_compose.server.engine.cpu.kernel_timing`); here is what is
asked for and what is shown.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lora_compose.adapters.errors import Code, CommandCode, InvalidRequest, LoraComposeError
from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.benchmarks.statistics import Spread, spread

HEADERS = (
    "tokens",
    "rank",
    "adapters",
    "µs",
    "95 %",
    "GFLOP/s",
    "GB/s",
    "of roofline",
    "vLLM, µs",
    "vLLM / ours",
)


@dataclass(frozen=True)
class Roofline:
    """The machine's limits, measured in the same run (Williams, Waterman, Patterson 2009)."""

    flops: float
    """A second, of a square product."""
    bytes: float
    """A second, of a sum of vectors larger than any cache."""

    def seconds(self, flops: float, moved: float) -> float:
        """The least this takes when everything comes from memory, once."""
        return max(flops / self.flops, moved / self.bytes)


@dataclass(frozen=True)
class Figure:
    """One cell. `bytes` counts each factor, input and output once."""

    tokens: int
    rank: int
    adapters: int
    ours: Spread
    vllm: Spread | None
    flops: float
    bytes: float
    of_roofline: float
    """Above 1 where the factors stay in a cache."""

    @property
    def speedup(self) -> float | None:
        """vLLM's median over ours."""
        return self.vllm.median / self.ours.median if self.vllm else None


def figures(document: dict[str, Any]) -> tuple[Roofline, list[Figure]]:
    """Of a result of `lora_compose.server.engine.cpu.kernel_timing`, with the layer's shape and the seed beside."""
    result, config = document["result"], document["config"]
    times = {
        (row["way"], row.get("tokens"), row.get("rank"), row.get("adapters")): _spread(row, config["seed"])
        for row in result["rows"]
    }
    gemm, stream = times["gemm", None, None, None], times["stream", None, None, None]
    roof = Roofline(result["gemm_flops"] / gemm.median, result["stream_bytes"] / stream.median)
    found = []
    for (way, tokens, rank, adapters), ours in times.items():
        if way == "ours":
            wide = config["hidden"] + config["out"]
            flops = 2.0 * tokens * rank * wide
            moved = 4.0 * (adapters * rank * wide + tokens * (config["hidden"] + 2 * config["out"]))
            share = roof.seconds(flops, moved) / ours.median
            vllm = times.get(("vllm", tokens, rank, adapters))
            found.append(Figure(tokens, rank, adapters, ours, vllm, flops, moved, share))
    return roof, found


def _spread(row: dict[str, Any], seed: int) -> Spread:
    found = spread(row["seconds"], seed)
    assert found is not None
    return found


def cells(one: Figure) -> tuple[str, ...]:
    """One line of the table, under HEADERS."""
    ours, vllm, speedup = one.ours, one.vllm, one.speedup
    return (
        *(str(one.tokens), str(one.rank), str(one.adapters)),
        f"{1e6 * ours.median:.4g}",
        f"{1e6 * ours.low:.4g} to {1e6 * ours.high:.4g}",
        f"{one.flops / ours.median / 1e9:.1f}",
        f"{one.bytes / ours.median / 1e9:.1f}",
        f"{one.of_roofline:.2f}",
        f"{1e6 * vllm.median:.4g}" if vllm else "-",
        f"{speedup:.1f}" if speedup else "-",
    )


def title(document: dict[str, Any], roof: Roofline) -> str:
    """Where it was measured, and the limits there."""
    machine, config, result = document["machine"], document["config"], document["result"]
    shape = f"{config['hidden']} x {config['out']} layer"
    return (
        f"{shape}, float32, {machine['cpu']}, {result['threads']} thread(s), median of {config['repeats']}; "
        f"a product of 1024 x 1024 matrices: {roof.flops / 1e9:.1f} GFLOP/s, a sum of long vectors: "
        f"{roof.bytes / 1e9:.1f} GB/s"
    )


def table(document: dict[str, Any]) -> Table:
    """For a terminal."""
    roof, found = figures(document)
    made = Table(title=title(document, roof), title_justify="left")
    for header in HEADERS:
        made.add_column(header, justify="right")
    for one in found:
        made.add_row(*cells(one))
    return made


def markdown_table(document: dict[str, Any]) -> str:
    """For a page."""
    roof, found = figures(document)
    lines = [HEADERS, tuple("--:" for _ in HEADERS), *(cells(one) for one in found)]
    return "\n".join([f"{title(document, roof)}.", "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def heat_map(document: dict[str, Any], path: Path) -> None:
    """Above GFLOP/s of ours, below how much longer vLLM's ops take; a panel for each count of adapters."""
    from matplotlib.figure import Figure as Canvas

    _, found = figures(document)
    counts = sorted({one.adapters for one in found})
    canvas = Canvas(figsize=(3.4 * len(counts), 6.4), layout="constrained")
    axes = canvas.subplots(2, len(counts), squeeze=False)
    for column, count in enumerate(counts):
        panel = [one for one in found if one.adapters == count]
        rates = [one.flops / one.ours.median / 1e9 for one in panel]
        _panel(axes[0][column], panel, rates, f"GFLOP/s, {count} adapter(s)")
        _panel(axes[1][column], panel, [one.speedup or 0 for one in panel], f"vLLM's time / ours, {count}")
    canvas.savefig(path, dpi=110)


def _panel(axis: Any, panel: Sequence[Figure], values: Sequence[float], name: str) -> None:
    ranks, tokens = sorted({one.rank for one in panel}), sorted({one.tokens for one in panel})
    grid = [[float("nan")] * len(ranks) for _ in tokens]
    for one, value in zip(panel, values, strict=True):
        row, column = tokens.index(one.tokens), ranks.index(one.rank)
        grid[row][column] = value
        high = value > 0.6 * max(values)
        axis.text(column, row, f"{value:.3g}", ha="center", va="center", color="black" if high else "white")
    axis.imshow(grid, cmap="viridis", aspect="auto", vmin=0)
    axis.set_xticks(range(len(ranks)), ranks)
    axis.set_yticks(range(len(tokens)), tokens)
    axis.set(title=name, xlabel="rank", ylabel="tokens")


TIMING = (sys.executable, "-m", "lora_compose.server.engine.cpu.kernel_timing")
LONGEST = 16


def kernels(  # noqa: PLR0913  the options of a command
    tokens: Annotated[str, typer.Option(help="Rows of a batch, comma between.")] = "1,8,64,512",
    ranks: Annotated[str, typer.Option(help="Of every adapter in it.")] = "4,8,16,64",
    adapters: Annotated[
        str, typer.Option(help="In the batch; cells with more of them than tokens are left out.")
    ] = "1,4,8",
    hidden: Annotated[int, typer.Option(min=1, help="Inputs of the layer.")] = 1024,
    out: Annotated[int, typer.Option(min=1, help="Outputs of the layer.")] = 1024,
    repeats: Annotated[int, typer.Option(min=5, help="Of every cell; all cells take turns.")] = 7,
    seed: Annotated[int, typer.Option(help="Of the factors and the intervals.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write everything here.", metavar="FILE")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here.", metavar="FILE")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the heat map here.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Time the CPU LoRA kernels by themselves: tokens x rank x adapters in the batch.

    Each cell is what one layer adds in one step, by our kernels and by vLLM's CPU ops, with its rate of
    arithmetic (GFLOP/s) and of memory (GB/s) held against a plain matrix product and a plain sum of long
    vectors measured in the same run: the roofline of this machine. Threads are torch's: OMP_NUM_THREADS.

    - `OMP_NUM_THREADS=1 python -m lora_compose.benchmarks.studies.kernels`
    - `python -m lora_compose.benchmarks.studies.kernels --tokens 1,8 --ranks 16 --adapters 1 --hidden 4096 --out 4096`
    - `python -m lora_compose.benchmarks.studies.kernels --output kernels.json --png kernels.png`
    """
    axes = {"tokens": _numbers(tokens, "tokens"), "ranks": _numbers(ranks, "ranks")}
    axes["adapters"] = _numbers(adapters, "adapters")
    config = {**axes, "hidden": hidden, "out": out, "repeats": repeats, "seed": seed}
    from lora_compose.benchmarks.machine import describe

    document = {"machine": describe(), "config": config, "result": _timed(config)}
    if output is not None:
        output.write_text(json.dumps(document) + "\n")
    if markdown is not None:
        markdown.write_text(markdown_table(document))
    if png is not None:
        heat_map(document, png)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 130).print(table(document))


def _numbers(text: str, name: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > LONGEST or not all(part.isdecimal() and 0 < int(part) <= 1 << 16 for part in parts):
        raise InvalidRequest(
            Code.OUT_OF_RANGE, f"--{name} ({text}) must be whole numbers such as 1,8,64.", name
        )
    return [int(part) for part in parts]


def _timed(config: dict[str, Any]) -> dict[str, Any]:
    """The child's result, its progress shown."""
    from rich.console import Console
    from rich.progress import Progress

    arguments = [
        part
        for name, value in config.items()
        for part in (f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value))
    ]
    said: dict[str, Any] = {}
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        subprocess.Popen([*TIMING, *arguments], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as child,
    ):
        task = progress.add_task("timing", total=None)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                progress.update(task, completed=said.get("done", 0), total=said.get("total"))
    if child.returncode or "result" not in said:
        raise LoraComposeError(
            CommandCode.KERNELS_NOT_TIMED, "The timing process failed; its reason is above."
        )
    return dict(said["result"])


if __name__ == "__main__":
    typer.run(kernels)
