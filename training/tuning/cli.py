"""`lora-compose train weights`: find the weights of a stack, with a server or by gradient, and export it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    show_different_bases,
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
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.names import check_name
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.terminal import progress_bar, stdout

if TYPE_CHECKING:
    from lora_compose.training.evaluation.tasks import Task
    from lora_compose.training.tuning.coefficients import Plan
    from lora_compose.training.tuning.tune import Tuned
    from lora_compose.training.tuning.weight_search import Trial

Finer = Annotated[bool, typer.Option("--per-layer", help="Learn one weight for each layer of an adapter.")]
Gated = Annotated[
    bool,
    typer.Option("--gated", help="Learn one weight for each module of an adapter (CAT of LoRA Soups)."),
]


def weights(
    composition: CompositionText,
    output: Output,
    rows: Annotated[
        Path,
        typer.Option(help="Questions with right answers, as for `eval`.", metavar="FILE", show_default=False),
    ],
    judge: Annotated[str, typer.Option(help="The judge of the answers, as for `eval`.")] = "exact",
    limit: Annotated[
        int | None, typer.Option(min=4, help="Use at most this many rows, drawn by the seed.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Take about this time, without loading and writing.", metavar="SECONDS"),
    ] = None,
    per_layer: Finer = False,
    gated: Gated = False,
    model: Annotated[
        str | None,
        typer.Option(help="The base for --per-layer and --gated, which need no server.", metavar="MODEL"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of --per-layer and --gated.")] = 80,
    register: Annotated[
        str | None, typer.Option(help="Also register the result at --url under this name.", metavar="NAME")
    ] = None,
    data_dir: DataDir = None,
    adapter: AdapterDirectories = None,
    force: Force = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    seed: Annotated[int, typer.Option(help="Decides which half of the rows is held out.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Find better weights for a stack, and write the stack at these weights as one PEFT adapter.

    Half of the rows is used to find weights. The other half is held out: its score before and after, with an
    interval, shows what the weights win on other rows.

    Without --per-layer and --gated, the server at --url answers the rows at each choice of weights. It must
    hold the same adapters. With one of them, the base at --model is loaded here and many weights are learned
    by gradient. The command compares them with the given weights and with one learned weight for each
    adapter, and writes what has the best score on the held-out rows.

    - `lora-compose train weights "roll+wrap" out --rows rows.jsonl`
    - `lora-compose train weights "a+b" out --rows rows.jsonl --judge json --limit 64 --seconds 60`
    - `lora-compose train weights "a+b" out --rows rows.jsonl --gated --model ./base --register ab`
    """
    from lora_compose.training.tuning.rows import read_validation
    from lora_compose.training.tuning.tune import check_stack

    stack = parse(composition, "composition")
    check_stack(stack)
    if (per_layer or gated) != (model is not None) or (per_layer and gated):
        raise typer.BadParameter("Give --model with exactly one of --per-layer and --gated, or none of them.")
    if register is not None:
        check_name(register)
    check_output(output, force)
    base = None if model is None else resolve(model)
    found = find_members(stack, named_directories(adapter), data_dir or default_data_dir())
    task = read_validation(rows, judge, limit, seed)
    warnings = show_different_bases(found)
    if base is not None:
        from lora_compose.training.tuning.coefficients import Plan

        plan = Plan("layer" if per_layer else "module", steps, seed, seconds or math.inf)
        facts = _learned(found, task, base, plan, output, as_json)
    else:
        facts = _searched(stack, found, task, (url, api_key, seed), (output, force, seconds), as_json)
    if register is not None:
        version = _register(output, register, facts, (url, api_key))
        facts["registered"] = version
        if not as_json:
            typer.echo(f"Registered {version}")
    if as_json:
        echo_json(facts | {"warnings": warnings})


def _learned(
    found: Sequence[ResolvedMember], task: "Task", base: str, plan: "Plan", output: Path, as_json: bool
) -> dict[str, Any]:
    """Learn and write."""
    from lora_compose.training.tuning.learning import comparison_table, learned

    with progress_bar("steps") as step:
        report = lambda name, done, loss: step(done, plan.steps, f"{name}, loss {loss:.2f}")  # noqa: E731
        comparison, facts = learned(found, task, base, plan, output, report)
    if not as_json:
        stdout().print(comparison_table(comparison))
        typer.echo(f"Wrote {comparison.winner.name} to {output}")
    return facts


def _searched(
    stack: Composition,
    found: Sequence[ResolvedMember],
    task: "Task",
    server: tuple[str, str | None, int],
    how: tuple[Path, bool, float | None],
    as_json: bool,
) -> dict[str, Any]:
    """Search and write. `how` is the output, whether to overwrite it, and the seconds."""
    output, force, seconds = how
    tuned = _tuned(stack, found, task, server, math.inf if seconds is None else seconds)
    found = with_weights_of(found, tuned.composition)
    stack = replace(stack, members=tuple(resolved.member for resolved in found))
    report = export_with_progress(stack, found, output, force)
    if not as_json:
        stdout().print(tuned_table(tuned))
        typer.echo(verdict(tuned), err=True)
        show_export(stack, output, report)
    return export_facts(stack, found, output, report) | {"tuned": tuned.to_dict()}


def _tuned(
    stack: Composition,
    found: Sequence[ResolvedMember],
    task: "Task",
    server: tuple[str, str | None, int],
    seconds: float,
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

        return tune(exact, task, client, seed, on_progress, seconds)


def _register(output: Path, name: str, facts: dict[str, Any], server: tuple[str, str | None]) -> str:
    """Upload the adapter with its lineage. Returns its id."""
    from lora_compose.server.client.http import Client

    kept = {key: facts[key] for key in ("composition", "members", "base_fingerprint") if key in facts}
    made = {key: facts[key] for key in ("tuned", "learned") if key in facts}
    fields = {"name": name, "lineage": json.dumps({"method": "train weights", **kept, **made})}
    with (
        Client(*server) as client,
        (output / CONFIG_FILE).open("rb") as config,
        (output / WEIGHTS_FILE).open("rb") as tensors,
    ):
        return str(client.upload(fields, {CONFIG_FILE: config, WEIGHTS_FILE: tensors})["id"])


def with_weights_of(found: Sequence[ResolvedMember], tuned: Composition) -> list[ResolvedMember]:
    """`found` at the weights of `tuned`, whose members have the ids of `found`."""
    by_id = {member.id: member.weight for member in tuned.members}
    return [
        replace(resolved, member=replace(resolved.member, weight=by_id[resolved.id])) for resolved in found
    ]


def verdict(tuned: "Tuned") -> str:
    """What the held-out rows say."""
    low, high = tuned.held_out_gain
    change = f"{tuned.held_out_after - tuned.held_out_before:+.2f} (95 % interval {low:+.2f} to {high:+.2f})"
    if tuned.trials == 1 and tuned.tuned_before < 1:
        return "There was time for the given weights only. Use more --seconds, or a smaller --limit."
    if not tuned.pays:
        return f"The held-out score changed by {change}. Keep the original weights, or use more rows."
    if not tuned.is_sure:
        return f"The held-out score changed by {change}. That may be chance; use more rows to be sure."
    return f"The held-out score changed by {change}."


def tuned_table(tuned: "Tuned") -> Table:
    """The scores before and after, on the half used for the search and on the held-out half."""
    table = Table("rows", "original weights", "tuned weights", box=None, pad_edge=False)
    for name, count, before, after in (
        ("used for the search", tuned.tuned_rows, tuned.tuned_before, tuned.tuned_after),
        ("held out", tuned.held_out_rows, tuned.held_out_before, tuned.held_out_after),
    ):
        table.add_row(f"{name} ({count})", f"{before:.2f}", f"{after:.2f}")
    table.caption = f"Mean score of the judge {tuned.judge}; {tuned.trials} compositions tried"
    table.caption_justify = "left"
    return table
