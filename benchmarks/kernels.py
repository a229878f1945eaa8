"""`python -m benchmarks.kernels`: the CPU LoRA kernels by themselves, against what the machine can do.

The kernels are the server's, so a child process times them (`server.engine.kernel_timing`); here is what is
asked for and what is shown.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.errors import InvalidRequest, LoraComposeError
from benchmarks.machine import REPOSITORY

TIMING = (sys.executable, "-m", "server.engine.kernel_timing")
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

    - `OMP_NUM_THREADS=1 python -m benchmarks.kernels`
    - `python -m benchmarks.kernels --tokens 1,8 --ranks 16 --adapters 1 --hidden 4096 --out 4096`
    - `python -m benchmarks.kernels --output kernels.json --png kernels.png`
    """
    axes = {"tokens": _numbers(tokens, "tokens"), "ranks": _numbers(ranks, "ranks")}
    axes["adapters"] = _numbers(adapters, "adapters")
    config = {**axes, "hidden": hidden, "out": out, "repeats": repeats, "seed": seed}
    from benchmarks.kernel_figures import heat_map, table
    from benchmarks.kernel_figures import markdown as markdown_of
    from benchmarks.machine import describe

    document = {"machine": describe(), "config": config, "result": _timed(config)}
    if output is not None:
        output.write_text(json.dumps(document) + "\n")
    if markdown is not None:
        markdown.write_text(markdown_of(document))
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
        raise InvalidRequest("out_of_range", f"--{name} ({text}) must be whole numbers such as 1,8,64.", name)
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
        raise LoraComposeError("kernels_not_timed", "The timing process failed; its reason is above.")
    return dict(said["result"])


if __name__ == "__main__":
    typer.run(kernels)
