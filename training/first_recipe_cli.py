"""`lora-compose train init`: write a first recipe for a person's own rows and model."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import resolve
from lora_compose.training.data.labels import LabelRule
from lora_compose.training.data.rows import BadRows


def init(  # noqa: PLR0913  the options of a command
    data: Annotated[
        str, typer.Argument(help="Your rows: a file, a directory, or a pattern.", metavar="DATA")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The base: a directory, a name or a hub id. By default the embedded base, a toy.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory for the recipe and its data; by default named by DATA.", metavar="DIR"),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column that says whether an answer is good, for KTO.")
    ] = None,
    good_from: Annotated[
        float | None, typer.Option(help="Ratings from this number on are good, for KTO.")
    ] = None,
    good_labels: Annotated[
        list[str] | None, typer.Option(help="A label that means good, for KTO; may be repeated.")
    ] = None,
    bad_rows: Annotated[BadRows, typer.Option(help="Rows that cannot be used: stop, or drop them.")] = "stop",
    as_json: AsJson = False,
) -> None:
    """Look at your rows and a model, and write a recipe for them with a comment for each setting.

    The rows decide the method: answers are for sft, chosen and rejected answers for dpo, answers that are
    marked as good or bad for kto. A tenth of the rows is held out. Read the recipe, then run the command that
    is printed.

    - `lora-compose train init my.csv --model ./SmolLM2-135M-Instruct`
    - `lora-compose train init feedback.csv --label-column stars --good-from 4`
    """
    from lora_compose.training.data.quiet_logs import quiet_libraries

    quiet_libraries()
    from lora_compose.training.first_recipe import EMBEDDED_BASE, suggest
    from lora_compose.training.first_recipe_text import RECIPE_FILE, next_command

    directory = output or Path(f"{Path(data).stem or 'data'}-adapter")
    if (directory / RECIPE_FILE).exists():
        raise LoraComposeError(
            CommandCode.OUTPUT_EXISTS, f"{directory / RECIPE_FILE} exists. Give another --output", "output"
        )
    rule = LabelRule(label_column, good_from, tuple(good_labels or ()))
    made = suggest(data, resolve(model) if model else str(EMBEDDED_BASE), rule, bad_rows)
    _write(directory, made)
    command = next_command(made, directory)
    if as_json:
        echo_json({"recipe": str(directory / RECIPE_FILE), "method": made.method, "next": command})
        return
    for note in made.notes:
        typer.echo(note)
    typer.echo(
        f"{made.method}: {len(made.train)} rows to train on, {len(made.held_out)} held out, the longest of "
        f"{made.longest} tokens; {made.steps} steps of {made.batch * made.accumulation} rows"
    )
    typer.echo(f"Wrote {directory}: recipe.yaml, train.jsonl, held-out.jsonl")
    typer.echo(f"Next: {command}")


def _write(directory: Path, made: Any) -> None:
    """Write the recipe last, so that a directory with a recipe is whole."""
    from lora_compose.training.first_recipe_text import HELD_OUT_FILE, RECIPE_FILE, TRAIN_FILE, recipe_text

    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, rows in ((TRAIN_FILE, made.train), (HELD_OUT_FILE, made.held_out)):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (directory / name).write_text("".join(lines), encoding="utf-8")
        (directory / RECIPE_FILE).write_text(recipe_text(made, directory), encoding="utf-8")
    except OSError as error:
        raise LoraComposeError(
            CommandCode.OUTPUT_NOT_WRITTEN, f"{directory} cannot be written: {error}", "output"
        ) from error
