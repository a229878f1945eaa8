"""`python -m lora_compose.benchmarks.studies.kernels` times the CPU LoRA kernels alone.

The times are compared with vLLM's CPU ops and with the limits of the machine. The kernels belong to the
server, so a child process times them (`lora_compose.server.engine.cpu.kernel_timing`). This module starts it,
and makes the rates, the table and the heat map from its JSON.
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
from lora_compose.adapters.terminal import stderr, stdout
from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.benchmarks.statistics import Spread, spread
from lora_compose.server.client.tied import tied

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
    """The limits of the machine, measured in the same run (Williams, Waterman, Patterson 2009)."""

    flops: float
    """Operations a second of a product of square matrices."""
    bytes: float
    """Bytes a second of a sum of vectors that are larger than any cache."""

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for this work, if each byte is read from memory once."""
        return max(flops / self.flops, moved / self.bytes)


@dataclass(frozen=True)
class KernelTiming:
    """The timing of one cell. `bytes` counts each factor, input and output once."""

    tokens: int
    rank: int
    adapters: int
    ours: Spread
    vllm: Spread | None
    flops: float
    bytes: float
    of_roofline: float
    """Least time of the roofline divided by our time. Above 1 if the factors stay in a cache."""

    @property
    def speedup(self) -> float | None:
        """vLLM's median divided by ours."""
        return self.vllm.median / self.ours.median if self.vllm else None


def timings(document: dict[str, Any]) -> tuple[Roofline, list[KernelTiming]]:
    """The roofline and the timings of a result. `config` has the layer's shape and the seed."""
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
            found.append(KernelTiming(tokens, rank, adapters, ours, vllm, flops, moved, share))
    return roof, found


def _spread(row: dict[str, Any], seed: int) -> Spread:
    found = spread(row["seconds"], seed)
    assert found is not None
    return found


def cells(timing: KernelTiming) -> tuple[str, ...]:
    """The values of one line of the table, in the order of HEADERS."""
    ours, vllm, speedup = timing.ours, timing.vllm, timing.speedup
    return (
        *(str(timing.tokens), str(timing.rank), str(timing.adapters)),
        f"{1e6 * ours.median:.4g}",
        f"{1e6 * ours.low:.4g} to {1e6 * ours.high:.4g}",
        f"{timing.flops / ours.median / 1e9:.1f}",
        f"{timing.bytes / ours.median / 1e9:.1f}",
        f"{timing.of_roofline:.2f}",
        f"{1e6 * vllm.median:.4g}" if vllm else "-",
        f"{speedup:.1f}" if speedup else "-",
    )


def title(document: dict[str, Any], roof: Roofline) -> str:
    """The layer, the machine and its limits."""
    machine, config, result = document["machine"], document["config"], document["result"]
    shape = f"{config['hidden']} x {config['out']} layer"
    return (
        f"{shape}, float32, {machine['cpu']}, {result['threads']} thread(s), median of {config['repeats']}; "
        f"a product of 1024 x 1024 matrices: {roof.flops / 1e9:.1f} GFLOP/s, a sum of long vectors: "
        f"{roof.bytes / 1e9:.1f} GB/s"
    )


def table(document: dict[str, Any]) -> Table:
    """The timings as a table for a terminal."""
    roof, measured = timings(document)
    shown = Table(title=title(document, roof), title_justify="left")
    for header in HEADERS:
        shown.add_column(header, justify="right")
    for timing in measured:
        shown.add_row(*cells(timing))
    return shown


def markdown_table(document: dict[str, Any]) -> str:
    """The timings as a Markdown table."""
    roof, measured = timings(document)
    lines = [HEADERS, tuple("--:" for _ in HEADERS), *(cells(timing) for timing in measured)]
    return "\n".join([f"{title(document, roof)}.", "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def heat_map(document: dict[str, Any], path: Path) -> None:
    """Draw a heat map to `path`, with a column of panels for each number of adapters.

    The upper panel has the GFLOP/s of our kernels. The lower panel has vLLM's time divided by ours.
    """
    from matplotlib.figure import Figure

    _, measured = timings(document)
    counts = sorted({timing.adapters for timing in measured})
    figure = Figure(figsize=(3.8 * len(counts), 7.2), layout="constrained")
    figure.suptitle(
        "Our LoRA kernels on a CPU. Above: their speed in GFLOP/s. Below: how many times as long vLLM's take."
    )
    axes = figure.subplots(2, len(counts), squeeze=False)
    for column, count in enumerate(counts):
        panel = [timing for timing in measured if timing.adapters == count]
        rates = [timing.flops / timing.ours.median / 1e9 for timing in panel]
        speedups = [timing.speedup or 0 for timing in panel]
        _panel(axes[0][column], panel, rates, f"GFLOP/s, {_adapters(count)}")
        _panel(axes[1][column], panel, speedups, f"vLLM's time / ours, {_adapters(count)}")
    figure.savefig(path, dpi=110)


def _adapters(count: int) -> str:
    return f"{count} adapter{'s' if count > 1 else ''}"


def _panel(axis: Any, panel: Sequence[KernelTiming], values: Sequence[float], name: str) -> None:
    ranks, tokens = sorted({timing.rank for timing in panel}), sorted({timing.tokens for timing in panel})
    grid = [[float("nan")] * len(ranks) for _ in tokens]
    for timing, value in zip(panel, values, strict=True):
        row, column = tokens.index(timing.tokens), ranks.index(timing.rank)
        grid[row][column] = value
        high = value > 0.6 * max(values)
        axis.text(column, row, f"{value:.3g}", ha="center", va="center", color="black" if high else "white")
    axis.imshow(grid, cmap="viridis", aspect="auto", vmin=0)
    axis.set_xticks(range(len(ranks)), ranks)
    axis.set_yticks(range(len(tokens)), tokens)
    axis.set(title=name, xlabel="rank of each adapter", ylabel="tokens in the batch")


TIMING = (sys.executable, "-m", "lora_compose.server.engine.cpu.kernel_timing")
LONGEST = 16


def kernels(  # noqa: PLR0913  the options of a command
    tokens: Annotated[
        str, typer.Option(help="Numbers of tokens in a batch, separated by commas.")
    ] = "1,8,64,512",
    ranks: Annotated[
        str,
        typer.Option(
            help="Ranks of the adapters, separated by commas. All adapters of a batch have one rank."
        ),
    ] = "4,8,16,64",
    adapters: Annotated[
        str,
        typer.Option(
            help="Numbers of adapters in a batch, separated by commas. Cells with more adapters than tokens "
            "are left out."
        ),
    ] = "1,4,8",
    hidden: Annotated[int, typer.Option(min=1, help="Inputs of the layer.")] = 1024,
    out: Annotated[int, typer.Option(min=1, help="Outputs of the layer.")] = 1024,
    repeats: Annotated[int, typer.Option(min=5, help="Repeats of every cell. The cells take turns.")] = 7,
    seed: Annotated[int, typer.Option(help="Seed of the factors and the intervals.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here.", metavar="FILE")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown here.", metavar="FILE")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the heat map here.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Time the CPU LoRA kernels alone, for each number of tokens, rank and number of adapters in a batch.

    Each cell is the work that LoRA adds to one layer in one step, done by our kernels and by vLLM's CPU ops.
    GFLOP/s and GB/s are compared with the limits of the machine, which are measured in the same run with a
    plain matrix product and a plain sum of long vectors. OMP_NUM_THREADS sets the number of threads.

    - `OMP_NUM_THREADS=1 python -m lora_compose.benchmarks.studies.kernels`
    - `python -m lora_compose.benchmarks.studies.kernels --tokens 1,8 --ranks 16 --adapters 1 --hidden 4096`
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
        stdout().print(table(document))


def _numbers(text: str, name: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > LONGEST or not all(part.isdecimal() and 0 < int(part) <= 1 << 16 for part in parts):
        raise InvalidRequest(
            Code.OUT_OF_RANGE,
            f"--{name} ({text}) must be at most {LONGEST} whole numbers from 1 to 65536, such as 1,8,64.",
            name,
        )
    return [int(part) for part in parts]


def _timed(config: dict[str, Any]) -> dict[str, Any]:
    """Run the child process and show its progress. Returns its result."""
    from rich.progress import Progress

    arguments = [
        part
        for name, value in config.items()
        for part in (f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value))
    ]
    message: dict[str, Any] = {}
    with (
        Progress(console=stderr(), transient=True) as progress,
        subprocess.Popen(
            tied([*TIMING, *arguments]), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        ) as child,
    ):
        task = progress.add_task("timing", total=None)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                progress.update(task, completed=message.get("done", 0), total=message.get("total"))
    if child.returncode or "result" not in message:
        raise LoraComposeError(
            CommandCode.KERNELS_NOT_TIMED, "The timing process failed. Its error message is above."
        )
    return dict(message["result"])


if __name__ == "__main__":
    typer.run(kernels)
