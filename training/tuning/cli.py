"""`lora-compose train weights`: search the weights of a stack against a running server, and export it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lora_compose.adapters.cli import (
    AdapterDirectories,
    CompositionText,
    Force,
    Output,
    export_facts,
    export_with_progress,
    named_directories,
    show_export,
)
from lora_compose.adapters.command_line import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    DataDir,
    Url,
    default_data_dir,
    echo_json,
)
from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.export import ResolvedMember, check_output, find_members
from lora_compose.adapters.terminal import progress_bar, stdout

if TYPE_CHECKING:
    from lora_compose.training.tuning.rows import ValidationRow
    from lora_compose.training.tuning.tune import Tuned
    from lora_compose.training.tuning.weight_search import Trial


def weights(
    composition: CompositionText,
    output: Output,
    rows: Annotated[
        Path,
        typer.Option(help="Validation rows of prompt and completion.", metavar="JSONL", show_default=False),
    ],
    data_dir: DataDir = None,
    adapter: AdapterDirectories = None,
    force: Force = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    seed: Annotated[int, typer.Option(help="Decides which half of the rows is held out.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search the weights of a stack, and write the stack at these weights as one PEFT adapter.

    The server at --url must hold the same adapters. It answers the rows of --rows at each choice of weights;
    an answer counts if it is exactly the completion. The search uses half of the rows. The other half is held
    out: it shows whether the weights also help on other rows.

    - `lora-compose train weights "roll+wrap" out --rows rows.jsonl`
    - `lora-compose train weights "a+b" out --rows rows.jsonl --adapter a=./a --adapter b=./b --seed 1`
    """
    from lora_compose.training.tuning.rows import read_validation

    stack = parse(composition, "composition")
    check_output(output, force)
    found = find_members(stack, named_directories(adapter), data_dir or default_data_dir())
    tuned = _tuned(stack, found, read_validation(rows), (url, api_key, seed))
    found = with_weights_of(found, tuned.composition)
    stack = replace(stack, members=tuple(resolved.member for resolved in found))
    report = export_with_progress(stack, found, output, force)
    if as_json:
        echo_json(export_facts(stack, found, output, report) | {"tuned": tuned.to_dict()})
        return
    stdout().print(tuned_table(tuned))
    if not tuned.pays:
        typer.echo(
            "The score on the held-out rows did not improve. Keep the original weights, or use more rows.",
            err=True,
        )
    show_export(stack, output, report)


def _tuned(
    stack: Composition,
    found: Sequence[ResolvedMember],
    rows: Sequence["ValidationRow"],
    server: tuple[str, str | None, int],
) -> "Tuned":
    """Search the weights. `server` is the URL, the API key and the seed."""
    from lora_compose.server.client.chat import ChatClient
    from lora_compose.training.tuning.tune import tune, with_versions

    url, api_key, seed = server
    exact = with_versions(stack, {resolved.member.id: resolved.id for resolved in found})
    with ChatClient(url, api_key) as client, progress_bar("weights tried") as step:
        count, best = 0, 0.0

        def on_progress(trial: "Trial") -> None:
            nonlocal count, best
            count, best = count + 1, max(best, trial.score)
            step(count, None, f"best {best:.2f}")

        return tune(exact, rows, client, seed, on_progress)


def with_weights_of(found: Sequence[ResolvedMember], tuned: Composition) -> list[ResolvedMember]:
    """`found` at the weights of `tuned`, whose members have the ids of `found`."""
    by_id = {member.id: member.weight for member in tuned.members}
    return [
        replace(resolved, member=replace(resolved.member, weight=by_id[resolved.id])) for resolved in found
    ]


def tuned_table(tuned: "Tuned") -> Table:
    """Exact matches before and after, on the half used for the search and on the held-out half."""
    table = Table("rows", "original weights", "tuned weights", box=None, pad_edge=False)
    for name, count, before, after in (
        ("used for the search", tuned.tuned_rows, tuned.tuned_before, tuned.tuned_after),
        ("held out", tuned.held_out_rows, tuned.held_out_before, tuned.held_out_after),
    ):
        table.add_row(f"{name} ({count})", f"{before:.2f}", f"{after:.2f}")
    table.caption = f"Shares of exact matches; {tuned.trials} compositions tried"
    table.caption_justify = "left"
    return table
