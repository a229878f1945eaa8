"""`lora-compose train suite` and `train replay`: make general tasks and general data."""

from pathlib import Path
from typing import Annotated

import typer

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import chatter_on_stderr, progress_bar
from lora_compose.training.data.jsonl_output import check_output, write_rows

Output = Annotated[Path, typer.Argument(help="The JSONL file to write.", metavar="OUT")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT.")]
Seed = Annotated[int, typer.Option(help="Seed of all random choices.")]


def suite(
    output: Output,
    rows: Annotated[int, typer.Option(min=1, max=6000, help="Number of questions.")] = 300,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a suite of simple questions with right answers, to measure what a model forgets.

    The groups are arithmetic, ordering, copying, strings, format and logic. Each row names its judge. Use the
    file as `--general` of `lora-compose eval`, or as `general_tasks` of a recipe.

    - `lora-compose train suite general.jsonl`
    - `lora-compose eval --model base --general general.jsonl`
    """
    from lora_compose.training.general.suite import GROUPS
    from lora_compose.training.general.suite import suite as made

    check_output(output, force)
    write_rows(output, made(rows, seed))
    if as_json:
        echo_json({"output": str(output), "rows": rows, "seed": seed, "groups": list(GROUPS)})
        return
    typer.echo(f"{rows} questions in {len(GROUPS)} groups written to {output}")


def replay(
    output: Output,
    model: Annotated[str, typer.Option(help="The base as a directory or hub id.", metavar="DIR")],
    prompts: Annotated[
        str | None,
        typer.Option(
            help="A file of rows, or a .txt file with one prompt a line; by default ordinary prompts that "
            "are shipped.",
            metavar="FILE",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Temperature of sampling. 1 samples as the base itself does.")
    ] = 0.7,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Answers with more tokens have no end, and are dropped.")
    ] = 256,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Let the base answer prompts, and write the rows, to mix them into training as `general`.

    Use this where there are no general data. The rows keep the base near to what it was; they teach nothing
    new.

    - `lora-compose train replay replay.jsonl --model base --rows 200`
    - `lora-compose train sft recipe.yaml --general replay.jsonl --ratio 5:5`
    """
    from lora_compose.training.data.quiet_logs import quiet_libraries

    quiet_libraries()
    from lora_compose.training.evaluation.models import composed
    from lora_compose.training.general.replay import Sampling, load_prompts
    from lora_compose.training.general.replay import replay as sampled

    check_output(output, force)
    asked = load_prompts(prompts)
    sampling = Sampling(rows, temperature, max_new_tokens, seed)
    with (
        progress_bar("rows sampled") as step,
        chatter_on_stderr(),
        composed(resolve(model), None, {}, Path()) as base,
    ):
        found = sampled(base, asked, sampling, lambda done: step(done, rows, ""))
    if not found.rows:
        raise InvalidRequest(
            CommandCode.NO_ROWS,
            f"No answer was kept: {found.endless} had no end after {max_new_tokens} tokens, and "
            f"{found.empty} were empty. Use a larger --max-new-tokens",
            "max_new_tokens",
        )
    write_rows(output, found.rows)
    facts = {"rows": len(found.rows), "dropped_endless": found.endless, "dropped_empty": found.empty}
    if as_json:
        echo_json({"output": str(output), "prompts": len(asked), "seed": seed, **facts})
        return
    typer.echo(f"{len(found.rows)} rows written to {output}")
    if found.endless:
        typer.echo(f"{found.endless} answers had no end after {max_new_tokens} tokens, and were dropped")
    if len(found.rows) < rows:
        typer.echo(f"{rows - len(found.rows)} rows are missing. Use more prompts or --max-new-tokens")
