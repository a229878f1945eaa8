"""Compare the plan with measured peak memory of small Llamas with random weights, trained by TRL on the CPU.

    python -m lora_compose.training.planning.calibration             # all cases, half an hour on one core
    python -m lora_compose.training.planning.calibration 25m --json  # one size

Each case runs in a separate process (measured_run.py). The plan is for the same settings: float32, no device
context.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress
from rich.table import Table
from transformers import LlamaConfig

from lora_compose.adapters.command_line import AsJson
from lora_compose.adapters.terminal import stderr, stdout
from lora_compose.training.planning.architectures import shape_of
from lora_compose.training.planning.memory import Memory, memory_of
from lora_compose.training.planning.settings import Method, PlanSettings
from lora_compose.training.planning.shapes import ModelShape

MEASURED_FILE: Final = Path(__file__).with_name("measured.json")
MIB: Final = 1 << 20
SIZES: Final[dict[str, tuple[int, int, int, int]]] = {
    "25m": (512, 1376, 8, 2048),
    "100m": (768, 2048, 12, 16384),
    "300m": (1024, 2816, 20, 32000),
}
"""hidden, intermediate, layers, vocabulary."""


@dataclass(frozen=True)
class MeasuredCase:
    """One training run whose memory is measured."""

    size: str
    method: Method
    seq_len: int
    batch: int
    gradient_checkpointing: bool
    optimizer: str = "adamw_torch"
    double_quant: bool = True

    @property
    def config(self) -> dict[str, int]:
        """The config of a Llama with query heads of width 64, and half as many key heads."""
        hidden, inner, layers, vocab = SIZES[self.size]
        return {
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "vocab_size": vocab,
            "num_attention_heads": hidden // 64,
            "num_key_value_heads": hidden // 128,
        }

    @property
    def shape(self) -> ModelShape:
        return shape_of(LlamaConfig(**self.config, tie_word_embeddings=False))

    @property
    def settings(self) -> PlanSettings:
        return PlanSettings(
            method=self.method,
            seq_len=self.seq_len,
            batch=self.batch,
            optimizer=self.optimizer,
            gradient_checkpointing=self.gradient_checkpointing,
            double_quant=self.double_quant,
            dtype="float32",
            compute_dtype="float32",
            device="cpu",
        )

    @property
    def plan(self) -> Memory:
        return memory_of(self.shape, self.settings)


def all_cases(sizes: Sequence[str]) -> Iterator[MeasuredCase]:
    """Every method with and without checkpointing.

    The smallest model has more tokens, so that activations are most of its memory.
    """
    methods: tuple[Method, ...] = ("full", "lora", "qlora")
    for size in sizes:
        batch = 8 if size == "25m" else 2
        for method in methods:
            for checkpointing in (False, True):
                yield MeasuredCase(size, method, 256, batch, checkpointing)
    if "25m" in sizes:
        yield MeasuredCase("25m", "full", 256, 2, True, optimizer="adamw_8bit")
        yield MeasuredCase("25m", "qlora", 1024, 2, False, double_quant=False)


def measured(case: MeasuredCase, threads: int) -> int:
    """Peak memory of the case in bytes, measured in a separate process."""
    from lora_compose.training.planning.measured_run import ENVIRONMENT

    settings = case.settings
    names = ("method", "seq_len", "batch", "rank", "optimizer", "gradient_checkpointing", "double_quant")
    values: dict[str, Any] = {name: getattr(settings, name) for name in names}
    text = json.dumps({"config": case.config, "case": values, "threads": threads})
    command = [sys.executable, "-m", "lora_compose.training.planning.measured_run", text]
    environment = dict(os.environ) | ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{case} failed:\n{done.stderr[-3000:]}")
    peak: int = json.loads(done.stdout.splitlines()[-1])["peak"]
    return peak


def compare(cases: Sequence[MeasuredCase], threads: int) -> Iterator[dict[str, Any]]:
    """For each case, planned and measured memory in MiB, and the plan's error relative to the measured
    memory.
    """
    console = stderr()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for case in bar.track(cases, description="training"):
            peak = measured(case, threads)
            plan = case.plan
            yield {
                "size": case.size,
                "parameters": case.shape.parameters,
                "method": case.method,
                "optimizer": case.optimizer,
                "double_quant": case.double_quant,
                "tokens": f"{case.batch} x {case.seq_len}",
                "gradient_checkpointing": case.gradient_checkpointing,
                "planned": round(plan.total / MIB, 1),
                "measured": round(peak / MIB, 1),
                "error": round(plan.total / peak - 1, 3),
                "parts": {name: round(size / MIB, 1) for name, size in plan.parts().items()},
            }


def write_rows(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write `rows` to `file`. Rows of other sizes in it stay."""
    sizes = {row["size"] for row in rows}
    before = json.loads(file.read_text()) if file.exists() else []
    others = [row for row in before if row["size"] not in sizes]
    file.write_text(json.dumps([*others, *rows], indent=1) + "\n")


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """One row for each case."""
    table = Table(
        "model", "method", "tokens", "checkpointing", "planned MiB", "measured MiB", "error", box=None
    )
    for row in rows:
        method = (
            row["method"] if row["optimizer"] == "adamw_torch" else f"{row['method']}, {row['optimizer']}"
        )
        shown = [row["size"], method, row["tokens"], "yes" if row["gradient_checkpointing"] else "no"]
        table.add_row(*shown, f"{row['planned']:.0f}", f"{row['measured']:.0f}", f"{row['error']:+.1%}")
    return table


def main(
    sizes: Annotated[
        list[str] | None, typer.Argument(help=f"Sizes to measure, of {', '.join(SIZES)}; by default all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each run.")] = 1,
    output: Annotated[
        Path, typer.Option(help="File of results; results of other sizes in it stay.")
    ] = MEASURED_FILE,
    as_json: AsJson = False,
) -> None:
    """Train small Llamas, measure their peak memory, and compare it with the plan."""
    unknown = sorted(set(sizes or ()) - set(SIZES))
    if unknown:
        raise typer.BadParameter(f"unknown size {', '.join(unknown)}; the sizes are {', '.join(SIZES)}")
    rows = []
    for row in compare(list(all_cases(sizes or list(SIZES))), threads):
        rows.append(row)
        if as_json:
            typer.echo(json.dumps(row))
    write_rows(rows, output)
    if not as_json:
        stdout().print(table_of(rows))


if __name__ == "__main__":
    typer.run(main)
