"""The options of `python -m benchmarks.throughput`. Defaults are read off `Settings`."""

import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adapters.errors import LoraComposeError
from benchmarks.machine import describe
from benchmarks.report import document, findings_table
from benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE, ENVIRONMENT, server_environment
from benchmarks.session import Targets, check_adapters, measure, running_target, started_targets
from benchmarks.settings import Settings
from benchmarks.summary import Finding, findings

DEFAULTS = Settings()
ADAPTERS = "roll,upper,polite,dbl,code,wrap,okay,bang"
VLLM_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

throughput_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@throughput_app.command(context_settings=VLLM_OPTIONS)
def throughput(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(help="Rounds; each measures every arm twice.")] = DEFAULTS.rounds,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two small rounds: a look, not a measurement.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write everything here, each request included.", metavar="FILE")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests in flight.")] = DEFAULTS.concurrency,
    requests: Annotated[int, typer.Option(help="Requests of one pass over an arm.")] = DEFAULTS.requests,
    output_tokens: Annotated[
        int, typer.Option(help="Exact length of every answer.")
    ] = DEFAULTS.output_tokens,
    prefill_chars: Annotated[
        int, typer.Option(help="Length of the prompts whose prefill is timed.")
    ] = DEFAULTS.prefill_chars,
    seed: Annotated[int, typer.Option(help="Of the prompts and of the intervals.")] = DEFAULTS.seed,
    model: Annotated[str, typer.Option(help="The base to serve.", metavar="MODEL")] = str(EMBEDDED_BASE),
    adapter_root: Annotated[
        Path, typer.Option(help="Where the adapters lie, each in a directory of its name.", metavar="DIR")
    ] = EMBEDDED_ADAPTERS,
    adapters: Annotated[
        str,
        typer.Option(help="Four adapters or more, comma between; with eight, all of them in one batch too."),
    ] = ADAPTERS,
    url: Annotated[
        str | None,
        typer.Option(help="Measure a running server that has the adapters; then not the layer's cost."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="The key that server wants.", envvar="LORA_COMPOSE_API_KEY")
    ] = None,
) -> None:
    """What adapters, stacks and our server cost, as ratios measured in one run.

    It starts `lora-compose serve` and, beside it, vLLM's own app with the same engine options; only one of
    them is loaded at a time. Four blocks come out:

    - **output throughput** of one adapter, stacks, a merge and a mixed batch against the base
    - **prefill**: time to the first token of a long fresh prompt, with an adapter against the base
    - **server layer**: the same base requests through our server against vLLM's app, whole answers
    - **server layer, streamed**: the same as streams

    Examples:

    - `python -m benchmarks.throughput --quick`
    - `python -m benchmarks.throughput --rounds 15 --out results.json`
    - `python -m benchmarks.throughput --url http://127.0.0.1:8000 --adapters a,b,c,d`

    **Every other option is vLLM's** and goes to both servers. The last line of the output is the result as
    JSON, without the requests. Exit code 1: a request failed, or no server got ready.
    """
    names = [name.strip() for name in adapters.split(",")]
    try:
        check_adapters(names)
        settings = Settings(
            rounds=rounds,
            concurrency=concurrency,
            requests=requests,
            output_tokens=output_tokens,
            prefill_chars=prefill_chars,
            seed=seed,
        )
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    settings = settings.quick() if quick else settings
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with ExitStack() as stack:
            if url is not None:
                targets = running_target(url, names, api_key)
            else:
                home = stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-"))
                console.print("starting two servers (about a minute)")
                started = started_targets(model, adapter_root, names, Path(home), context.args)
                targets = stack.enter_context(started)
            found = _run(targets, settings, console, out)
    except LoraComposeError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(1 if any(one.failed for one in found) else 0)


def _run(targets: Targets, settings: Settings, console: Console, out: Path | None) -> list[Finding]:
    columns = (TextColumn("{task.description:<45}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        measured = asyncio.run(measure(targets, settings, progress))
    found = findings(targets.phases(settings), measured.passes, settings.seed)
    config = _config(targets, settings)
    console.print(findings_table(found, _title(config, settings, measured.loads[-1][0])))
    if out is not None:
        out.write_text(json.dumps(document(config, measured, found, rows=True)) + "\n")
        console.print(f"wrote {out}")
    typer.echo(json.dumps(document(config, measured, found, rows=False)))
    return found


def _config(targets: Targets, settings: Settings) -> dict[str, Any]:
    return {
        "settings": asdict(settings),
        "machine": describe(),
        "base": targets.base,
        "adapters": [{key: one[key] for key in ("id", "digest", "rank")} for one in targets.adapters],
        "commands": targets.commands,
        "environment": {name: value for name, value in server_environment().items() if name in ENVIRONMENT},
    }


def _title(config: dict[str, Any], settings: Settings, load: float) -> str:
    machine = config["machine"]
    return (
        f"{config['base']} on {machine['cpus']} x {machine['cpu']}, {settings.rounds} rounds, "
        f"{settings.concurrency} concurrent requests of {settings.output_tokens} tokens, "
        f"load average {load:.1f}"
    )
