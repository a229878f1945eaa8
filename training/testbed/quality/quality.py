"""Measure how much of each member remains in compositions, for every way of combining and two models.

It runs offline, in one process. adapters/merging/merge.py builds a composition, its deltas are added to the
base's weights, and the model is asked held-out questions. The file of results is written after every cell,
and docs/composition-quality.md at the end.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import torch
import typer

from lora_compose.training.testbed.measure import read_record
from lora_compose.training.testbed.paths import TESTBED_DIR
from lora_compose.training.testbed.quality.cells import Job, jobs, measure
from lora_compose.training.testbed.quality.page import write_page
from lora_compose.training.testbed.quality.toy import Toy
from lora_compose.training.testbed.smollm2.paths import BASE_NAME, BaseModel, base_directory
from lora_compose.training.testbed.smollm2.subject import SmolLM2
from lora_compose.training.testbed.subject import Subject

PAGE: Final = TESTBED_DIR.parent.parent / "docs" / "composition-quality.md"


class Model(StrEnum):
    """The models that can be measured."""

    TOY = "toy"
    SMOLLM2 = "smollm2"


def subject_of(model: Model, base: str) -> Subject:
    """The subject. Raises LoraComposeError("no_model") if SmolLM2 is not on this machine."""
    return Toy() if model is Model.TOY else SmolLM2(base_directory(base))


def chosen(subject: Subject, kinds: list[str], ways: list[str]) -> list[Job]:
    """The cells of the given kinds and ways; an empty list means all."""
    every = jobs(subject)
    for name, given, known in (
        ("--kind", kinds, {job.mixture.kind for job in every}),
        ("--way", ways, {job.way for job in every}),
    ):
        unknown = sorted(set(given) - known)
        if unknown:
            raise typer.BadParameter(f"{name} {unknown[0]} is not one of {', '.join(sorted(known))}")
    return [
        job for job in every if (not kinds or job.mixture.kind in kinds) and (not ways or job.way in ways)
    ]


def main(
    model: Annotated[Model, typer.Option(help="The model to measure.")] = Model.TOY,
    base: BaseModel = BASE_NAME,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Training seeds of the adapters. Repeatable. 0, the default, is shipped."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only mixtures of this kind, such as skill+style. Repeatable.")
    ] = None,
    way: Annotated[
        list[str] | None, typer.Option(help="Only this way of combining, such as stack. Repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Measure the pairs and triples of a model's adapters for every way of combining them.

    Results that the file of the model holds are not measured again, so an interrupted run continues. The
    embedded base takes a quarter of an hour for a seed, SmolLM2 some hours.

    - python -m lora_compose.training.testbed.quality
    - python -m lora_compose.training.testbed.quality --model smollm2 --kind skill+style
    - python -m lora_compose.training.testbed.quality --model smollm2 --seed 0 --seed 1 --seed 2
    """
    torch.set_num_threads(threads)
    subject = subject_of(model, base)
    wanted = chosen(subject, kind or [], way or [])
    for number in seed or [0]:
        for job, cell in measure(subject, number, wanted):
            typer.echo(f"seed {number}  {job.mixture.label}  {job.way}: {cell['joint']:.2f}")
    subjects: list[Subject] = [Toy(), SmolLM2(Path())]
    write_page([(each, read_record(each.file).get("seeds", {})) for each in subjects], PAGE)
    typer.echo(f"Wrote {PAGE}")
