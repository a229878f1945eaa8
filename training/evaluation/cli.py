"""`lora-compose eval`: score a base, an adapter or a composition, and show the result as a table or JSON."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from lora_compose.adapters.command_line import ApiKey, AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import chatter_on_stderr, status, stdout
from lora_compose.training.data.jsonl_output import write_text
from lora_compose.training.evaluation.evaluate import Report
from lora_compose.training.evaluation.intervals import shown, shown_ends, with_interval
from lora_compose.training.evaluation.judges.named import DEFAULT, JUDGES
from lora_compose.training.evaluation.requirements import check_directions, parse_requirements, unmet
from lora_compose.training.evaluation.scores import TaskScore


def score_table(report: Report) -> Table:
    """One row for each task, with its interval, the base's score and the paired change since the base.

    Then a row for each other score.
    """
    heading = f"[b]{escape(report.model)}[/]"
    columns = ("judge", "right", "of", "score", "95 %", "base", "change since the base")
    table = Table(heading, *columns, box=None, pad_edge=False)
    base = {(task.kind, task.task): task for task in report.base}
    for task in report.tasks:
        before = base.get((task.kind, task.task))
        table.add_row(f"{task.kind}: {escape(task.task)}", *_cells(task, before))
        for name, part in task.parts.items():
            earlier = None if before is None else before.parts.get(name)
            table.add_row(f"  {escape(name)}", *_cells(part, earlier))
    for name, value in report.scores.items():
        if not name.startswith(_IN_TASK_ROWS):
            count, interval = str(report.counts.get(name, "")), report.intervals.get(name)
            ends = "" if interval is None else shown_ends(interval)
            table.add_row(f"[b]{escape(name)}[/]", "", "", count, f"[b]{shown(value)}[/]", ends, "", "")
    return table


def _cells(task: TaskScore, before: TaskScore | None) -> list[str]:
    found = [escape(task.judge), "" if task.lower_is_better else str(task.right), str(task.count)]
    found += [shown(task.score), shown_ends(task.interval)]
    if before is None:
        return [*found, "", ""]
    return [*found, shown(before.score), with_interval(*task.change_since(before))]


def wrong_answers(report: Report, count: int) -> Table:
    """The first `count` wrong answers of each task."""
    table = Table("task", "question", "answer", "right answer", box=None, pad_edge=False)
    for task in report.tasks:
        for wrong in task.wrong[:count]:
            question = wrong.question.prompt[-1]["content"]
            table.add_row(*map(escape, (task.task, question, wrong.answer, wrong.question.answer)))
    return table


_IN_TASK_ROWS = ("task:", "group:", "json_leaves:")
"""Scores whose values are shown with their task."""
PACKAGES = ("lora-compose", "torch", "transformers", "peft", "trl")


def evaluate(
    composition: Annotated[
        str | None,
        typer.Argument(
            help="The composition to evaluate, such as `roll:0.8+upper`; by default the base.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base as a directory, a hub id or a name of `lora-compose models list`, to evaluate in "
            "this process.",
            metavar="DIR",
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Evaluate at this running server.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="Task of the domain: a file of questions with right answers, or testbed:NAME. Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Task of general ability, to measure forgetting. Repeatable.", metavar="FILE"),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help=f"Judge of --domain: {', '.join(JUDGES)}; or your function as file.py:function or "
            "module:function. A row's column `judge` wins.",
            metavar="JUDGE",
        ),
    ] = DEFAULT,
    general_judge: Annotated[str, typer.Option(help="Judge of --general.", metavar="JUDGE")] = DEFAULT,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Held-out text whose perplexity is measured: a UTF-8 file, or `shipped`. Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    loss: Annotated[
        bool, typer.Option("--loss", help="Also measure the mean loss of the right answers.")
    ] = False,
    preferences: Annotated[
        list[str] | None,
        typer.Option(
            help="Preferences, for accuracy, margin and length drift compared with the base. Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    harness: Annotated[
        list[str] | None,
        typer.Option(
            help="Task of lm-evaluation-harness, by name or as a YAML file. Repeatable.", metavar="TASK"
        ),
    ] = None,
    harness_chat: Annotated[
        bool, typer.Option("--harness-chat", help="Write the harness's prompts by the base's chat template.")
    ] = False,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Use the PEFT adapter in DIR as NAME in the composition. Repeatable.", metavar="NAME=DIR"
        ),
    ] = None,
    data_dir: DataDir = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many rows of each task are used.")
    ] = 200,
    beta: Annotated[float, typer.Option(help="β of DPO's reward, for the margin.")] = 0.1,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most this many tokens are generated for an answer; by default 64, or as many as the "
            "longest right answer has.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the choice of rows, if a task has more than --limit.")
    ] = 0,
    require: Annotated[
        str | None,
        typer.Option(
            help="Requirements, such as domain>=0.9,forgetting<=0.02. The exit code is 1 if one is not met."
        ),
    ] = None,
    show_errors: Annotated[int, typer.Option(min=0, help="Show this many wrong answers of each task.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write all results to this file as JSON.", metavar="FILE")
    ] = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Score a model by judged answers, held-out loss, preferences and tasks of lm-evaluation-harness.

    Forgetting is the general score of the base minus that of the composition. Both are measured in this run,
    on the same questions.

    - `lora-compose eval --model training/testbed/base --general testbed:general`
    - `lora-compose eval roll --model training/testbed/base --adapter roll=training/testbed/trained/roll
      --domain testbed:roll --general testbed:general --require "domain>=0.9,forgetting<=0.02"`
    - `lora-compose eval extract --model base --adapter extract=runs/extract/adapter --domain held-out.jsonl
      --judge json`
    - `lora-compose eval roll+upper --url http://127.0.0.1:8000 --domain testbed:roll+upper`
    """
    if url is None and model is None:
        raise typer.BadParameter("give --model to evaluate in this process, or --url to evaluate at a server")
    if url is not None and (adapter or data_dir):
        raise typer.BadParameter(
            "--adapter and --data-dir cannot be used with --url, because the server has its own adapters"
        )
    if not (domain or general or text or preferences or harness):
        raise typer.BadParameter(
            "give at least one of --domain, --general, --text, --preferences and --harness"
        )
    model = None if model is None else resolve(model)
    requirements = parse_requirements(require) if require else ()
    from lora_compose.training.data.quiet_logs import quiet_libraries

    quiet_libraries()
    from lora_compose.adapters.cli import named_directories
    from lora_compose.training.evaluation.evaluate import EvaluationRequest, evaluate_offline, evaluate_served
    from lora_compose.training.evaluation.held_out_text import load_text
    from lora_compose.training.evaluation.tasks import load_tasks

    with status("evaluating") as on_progress, chatter_on_stderr():
        tasks = [
            *load_tasks(domain or [], "domain", limit=limit, seed=seed, judge=judge),
            *load_tasks(general or [], "general", limit=limit, seed=seed, judge=general_judge),
        ]
        request = EvaluationRequest(
            tasks,
            tasks if loss else (),
            [load_text(source) for source in text or []],
            preferences or (),
            harness or (),
            harness_chat,
            limit,
            max_new_tokens,
            beta,
        )
        check_directions(requirements, request.lower_is_better)
        if url is not None:
            report = evaluate_served(url, composition, api_key, request, model, on_progress)
        else:
            report = evaluate_offline(
                str(model),
                composition,
                named_directories(adapter),
                data_dir or default_data_dir(),
                request,
                on_progress,
            )
    missed = unmet(requirements, report.scores) if requirements else []
    record = _record(report, seed, missed)
    if output is not None:
        write_text(output, json.dumps(record, indent=1) + "\n")
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
            {
                "task": task.task,
                "kind": task.kind,
                "judge": task.judge,
                "score": task.score,
                "lower_is_better": task.lower_is_better,
                "right": task.right,
                "count": task.count,
                "interval": list(task.interval),
                "too_long": task.too_long,
            }
            for task in report.tasks
        ],
        "base_tasks": [
            {"task": task.task, "score": task.score, "right": task.right, "count": task.count}
            for task in report.base
        ],
        "digests": dict(report.digests),
        "intervals": {name: list(ends) for name, ends in report.intervals.items()},
        "counts": dict(report.counts),
        "seed": seed,
        "versions": {package: version(package) for package in PACKAGES},
        "unmet": missed,
    }


def _show(report: Any, errors: int, missed: list[str]) -> None:
    from lora_compose.training.evaluation.scores import too_long_line

    console = stdout()
    console.print(score_table(report))
    if errors:
        console.print(wrong_answers(report, errors))
    for task in report.tasks:
        if task.too_long:
            line = too_long_line(task.task, task.too_long, task.count, "--max-new-tokens")
            console.print(line, highlight=False)
    for reason in missed:
        console.print(f"[red]{reason}[/]", highlight=False)
