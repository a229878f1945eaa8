"""`lora-compose eval`: what a base, an adapter or a composition knows, and what it has forgotten.

An evaluation for people.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.command_line import ApiKey, AsJson, DataDir, default_data_dir, echo_json
from lora_compose.training.evaluation.evaluate import Report
from lora_compose.training.evaluation.requirements import parse_requirements, unmet


def score_table(report: Report) -> Table:
    """One line a task with its interval and the base's share; then every other figure."""
    table = Table(
        f"[b]{escape(report.model)}[/]", "right", "of", "share", "95 %", "base", box=None, pad_edge=False
    )
    base = {each.task: each.share for each in report.base}
    for each in report.tasks:
        low, high = each.interval
        before = f"{base[each.task]:.3f}" if each.task in base else ""
        table.add_row(
            f"{each.kind}: {escape(each.task)}",
            str(each.right),
            str(each.count),
            f"{each.share:.3f}",
            f"{low:.3f}..{high:.3f}",
            before,
        )
    for name, value in report.scores.items():
        if not name.startswith("task:"):
            count, interval = str(report.counts.get(name, "")), report.intervals.get(name)
            sure = "" if interval is None else f"{interval[0]:.3f}..{interval[1]:.3f}"
            table.add_row(f"[b]{escape(name)}[/]", "", count, f"[b]{value:.3f}[/]", sure, "")
    return table


def wrong_answers(report: Report, count: int) -> Table:
    """The first of each task."""
    table = Table("task", "asked", "answered", "right", box=None, pad_edge=False)
    for each in report.tasks:
        for wrong in each.wrong[:count]:
            asked = wrong.question.prompt[-1]["content"]
            table.add_row(*map(escape, (each.task, asked, wrong.answer, wrong.question.answer)))
    return table


PACKAGES = ("lora-compose", "torch", "transformers", "peft", "trl")


def evaluate(
    composition: Annotated[
        str | None,
        typer.Argument(
            help="What to evaluate, such as `roll:0.8+upper`. Without: the base.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The base, as a directory or hub id: evaluate in this process.", metavar="DIR"),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask this running server instead.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Rows with right answers, or testbed:NAME. Repeatable.", metavar="FILE"),
    ] = None,
    general: Annotated[
        list[str] | None, typer.Option(help="The same, of what is not to be forgotten.", metavar="FILE")
    ] = None,
    loss: Annotated[bool, typer.Option("--loss", help="Also the mean loss of the right answers.")] = False,
    preferences: Annotated[
        list[str] | None,
        typer.Option(help="Preferences: accuracy, margin and length drift against the base.", metavar="FILE"),
    ] = None,
    harness: Annotated[
        list[str] | None,
        typer.Option(help="A task of lm-evaluation-harness, or a YAML file of one.", metavar="TASK"),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="A plain PEFT directory, under the name COMPOSITION uses. Repeatable.", metavar="NAME=DIR"
        ),
    ] = None,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of each task.")] = 200,
    beta: Annotated[float, typer.Option(help="DPO's β, of the reward margin.")] = 0.1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 64,
    seed: Annotated[int, typer.Option(help="Which rows, where there are more.")] = 0,
    require: Annotated[
        str | None, typer.Option(help="Exit code 1 unless it holds, such as domain>=0.9,forgetting<=0.02.")
    ] = None,
    show_errors: Annotated[int, typer.Option(min=0, help="Wrong answers to show of each task.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write everything here as JSON.", metavar="FILE")
    ] = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Score exact answers, held-out loss, preferences and lm-evaluation-harness tasks.

    Forgetting is the general score of the base less that of the composition, both measured in this run.

    - `lora-compose eval --model training/testbed/base --general testbed:general`
    - `lora-compose eval roll --model training/testbed/base --adapter roll=training/testbed/trained/roll
      --domain testbed:roll --general testbed:general --require "domain>=0.9,forgetting<=0.02"`
    - `lora-compose eval roll+upper --url http://127.0.0.1:8000 --domain testbed:roll+upper`
    """
    if url is None and model is None:
        raise typer.BadParameter("give --model to evaluate here, or --url to ask a server")
    if url is not None and (adapter or data_dir):
        raise typer.BadParameter(
            "a server has its own adapters: leave out --adapter and --data-dir, or --url"
        )
    requirements = parse_requirements(require) if require else ()
    from lora_compose.training.data.quiet_logs import hush

    hush()
    from lora_compose.adapters.cli import named_directories
    from lora_compose.training.evaluation.evaluate import Asked, evaluate_offline, evaluate_served
    from lora_compose.training.evaluation.tasks import load_tasks

    tasks = [
        *load_tasks(domain or [], "domain", limit=limit, seed=seed),
        *load_tasks(general or [], "general", limit=limit, seed=seed),
    ]
    asked = Asked(tasks, tasks if loss else (), preferences or (), harness or (), limit, max_new_tokens, beta)
    if not (tasks or preferences or harness):
        raise typer.BadParameter("give at least one of --domain, --general, --preferences and --harness")
    screen = Console(stderr=True)
    with screen.status("asking") as status:
        if url is not None:
            report = evaluate_served(url, composition, api_key, asked, model, status.update)
        else:
            report = evaluate_offline(
                str(model),
                composition,
                named_directories(adapter),
                data_dir or default_data_dir(),
                asked,
                status.update,
            )
    missed = unmet(requirements, report.scores) if requirements else []
    record = _record(report, seed, missed)
    if output is not None:
        output.write_text(json.dumps(record, indent=1) + "\n")
    if as_json:
        echo_json(record)
    else:
        _show(report, show_errors, missed)
    raise typer.Exit(1 if missed else 0)


def _record(report: Any, seed: int, missed: list[str]) -> dict[str, Any]:
    return {
        "model": report.model,
        "members": list(report.members),
        "scores": report.scores,
        "tasks": [
            {"task": t.task, "kind": t.kind, "right": t.right, "count": t.count, "interval": list(t.interval)}
            for t in report.tasks
        ],
        "base_tasks": [{"task": t.task, "right": t.right, "count": t.count} for t in report.base],
        "digests": dict(report.digests),
        "intervals": {name: list(ends) for name, ends in report.intervals.items()},
        "counts": dict(report.counts),
        "seed": seed,
        "versions": {package: version(package) for package in PACKAGES},
        "unmet": missed,
    }


def _show(report: Any, errors: int, missed: list[str]) -> None:

    console = Console()
    console.print(score_table(report))
    if errors:
        console.print(wrong_answers(report, errors))
    for reason in missed:
        console.print(f"[red]not met[/] {reason}", highlight=False)
