"""Measure SmolLM2 and each of its adapters alone on held-out questions, judged by code.

python -m lora_compose.training.testbed.smollm2.measure
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.training.testbed.measure import read_record, write_record
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.smollm2.forms import ORDINARY, SKILLS, STYLES, bare
from lora_compose.training.testbed.smollm2.paths import (
    ADAPTERS_DIR,
    BASE_NAME,
    MEASURED_FILE,
    BaseModel,
    base_directory,
)
from lora_compose.training.testbed.smollm2.shares import questions, shares_of
from lora_compose.training.testbed.subject import Ask

LONGEST_ANSWER: Final = 72
"""Tokens of an answer. The longest answers are ordinary ones with a greeting and a sign-off."""


def open_base(directory: Path) -> MergedBase:
    """The base in bfloat16, in which it answers several times as fast as in float32 on many CPUs."""
    return MergedBase(directory, LONGEST_ANSWER, torch.bfloat16)


def delta_norm(adapter: Lora) -> float:
    """Frobenius norm over all deltas of the adapter."""
    return float(sum(module.delta().square().sum() for module in adapter.modules.values()) ** 0.5)


def scores(ask: Ask, name: str) -> dict[str, float]:
    """What `ask` knows of one adapter: the share of exactly right answers, and of its content and form.

    For a style also the mean number of words, without greeting and sign-off.
    """
    skills, styles = ([name], []) if name in SKILLS else ([], [name])
    given: list[str] = []

    def kept(messages: Sequence[str]) -> list[str]:
        given.extend(ask(messages))
        return given

    found = shares_of(skills, styles, kept, "score")
    facts = {key: round(float(found[key]), 4) for key in ("joint", "content", "style")}
    if styles:
        facts["words"] = round(sum(len(bare(answer).split()) for answer in given) / len(given), 2)
    return facts


def base_answers(messages: Sequence[str]) -> list[str]:
    """The base's answers to the held-out ordinary questions, which are kept in the data."""
    known = dict(questions(ORDINARY, "score"))
    return [known[message] for message in messages]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Adapters to measure; by default all.")] = None,
    base: BaseModel = BASE_NAME,
    adapters: Annotated[Path, typer.Option(help="Directory of adapters.", exists=True)] = ADAPTERS_DIR,
    file: Annotated[Path, typer.Option(help="File of results.")] = MEASURED_FILE,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Ask SmolLM2 each adapter's held-out questions with the adapter and without it. Takes some minutes."""
    torch.set_num_threads(threads)
    model = open_base(base_directory(base))
    for name in names or [*SKILLS, *STYLES]:
        adapter = open_adapter(adapters / name)
        found: dict[str, Any] = {"delta_norm": round(delta_norm(adapter), 3)}
        with model.holding(adapter):
            found["adapter"] = scores(model.ask, name)
        found["base"] = scores(model.ask if name in SKILLS else base_answers, name)
        write_record(file, "adapters", read_record(file).get("adapters", {}) | {name: found})
        typer.echo(f"{name}: base {found['base']}, adapter {found['adapter']}")
    typer.echo(f"Wrote {file}")


if __name__ == "__main__":
    typer.run(main)
