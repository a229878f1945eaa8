"""`lora-compose bench` measures what the base, adapters, stacks, merges and fusing cost on this machine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lora_compose.adapters.command_line import ApiKey, AsJson, echo_json, server_root
from lora_compose.adapters.dataclass_options import options_from
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import progress_bar, stderr, stdout
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.benchmarks.serving.tune_command import tune

if TYPE_CHECKING:
    from lora_compose.benchmarks.serving.results.document import BenchmarkResult
    from lora_compose.benchmarks.serving.results.summary import Summary

VLLM_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
ADAPTERS = "roll,upper,polite,dbl,code,wrap,okay,bang"
EMBEDDED = "the embedded base"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Measure the ways to serve adapters, and recommend one; find the fastest settings of this machine.",
)


@app.command(context_settings=VLLM_OPTIONS)
@options_from(Plan)
def serve(
    context: typer.Context,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, in under five minutes.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Measure this running server. Without it, servers are started.")
    ] = None,
    model: Annotated[str, typer.Option(help="The base to serve.", metavar="MODEL")] = EMBEDDED,
    adapter_root: Annotated[
        Path | None,
        typer.Option(help="Directory that has each adapter in a directory of its name.", metavar="DIR"),
    ] = None,
    adapters: Annotated[
        str | None, typer.Option(help="Names of the adapters, separated by commas.", show_default=False)
    ] = None,
    plan: Plan,
    llama_server: Annotated[
        Path | None,
        typer.Option(
            help="llama.cpp's server. Default: the one on the PATH.", metavar="PATH", show_default=False
        ),
    ] = None,
    allow_fuse: Annotated[
        bool, typer.Option(help="With --url: the run may fuse, which changes the base for all clients.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Write the result here, with every request.", metavar="FILE")
    ] = Path("bench.json"),
    html: Annotated[
        Path | None, typer.Option(help="Also write the report as a page.", metavar="FILE", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Also write the report as Markdown.", metavar="FILE", show_default=False),
    ] = None,
    progress: Annotated[
        Literal["bar", "json"],
        typer.Option(help="bar: on stderr. json: one line of JSON on stdout for each step, without --json."),
    ] = "bar",
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency and throughput of each way to serve some adapters, in one run.

    **Arms**: `base`, `single` (one adapter), `stack:K`, `merge:K`, `fused:K` (folded into the base),
    `residual:K` (requests for the base while K adapters are fused), `vllm:K` (stock vLLM) and `peft:K`
    (transformers with PEFT), which both serve the exact sum of K adapters as one adapter, and `direct` (the
    base behind vLLM's own HTTP app). `weights:K` is a stack with other weights in each of `--compositions`.
    `llamacpp` adds the base, adapters and stacks of the run on llama.cpp's `llama-server`, in the same
    precision and with as many threads (`llamacpp:K` names one of them).

    **Closed loops** keep a fixed number of requests in flight and measure capacity. **Open loops** send at
    random times and measure latency. Arms take turns, and each is compared with the base within one repeat.
    A wrong answer counts as a failed request.

    - `lora-compose bench serve --quick`
    - `lora-compose bench serve --url http://127.0.0.1:8000 --adapters sql,polite --arms stack:2,merge:2`
    - `lora-compose bench serve --model org/model --adapter-root ./adapters --adapters a,b,c,d`
    - `lora-compose bench serve --ranks 8,32,128`
    - `lora-compose bench serve --arms single,stack:2,llamacpp --llama-server ./llama-server`

    All other options are passed to the vLLM servers that are started. Exit code 1: a request
    failed, or the server refused a part of the run.
    """
    from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE
    from lora_compose.benchmarks.serving.benchmark import measure
    from lora_compose.benchmarks.serving.report.report import write_reports
    from lora_compose.benchmarks.serving.systems import Where

    if as_json and progress == "json":
        raise typer.BadParameter("--json and --progress json both write to stdout. Give one of them.")
    where = Where(
        None if url is None else server_root(url),
        tuple(_listed(adapters if adapters is not None else ("" if url else ADAPTERS))),
        str(EMBEDDED_BASE) if model == EMBEDDED else resolve(model),
        adapter_root or EMBEDDED_ADAPTERS,
        tuple(context.args),
        api_key,
        allow_fuse,
        llama_server,
    )
    with _progress_output(progress) as on_progress:
        document = measure(plan.quick() if quick else plan, where, on_progress)
    output.write_text(json.dumps(document.to_json()) + "\n")
    summary = write_reports(document, html, markdown, quiet=as_json or progress == "json")
    if as_json:
        echo_json(_facts(document, summary))
    typer.echo(f"wrote {output}", err=True)
    raise typer.Exit(1 if summary.failed or document.caveats else 0)


app.command(context_settings=VLLM_OPTIONS)(tune)

Result = Annotated[Path, typer.Argument(help="Result of `bench serve`.", metavar="FILE")]


@app.command()
def report(
    result: Result,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.", metavar="FILE")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report as Markdown.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the tables, the page and the advice from a result.

    - `lora-compose bench report bench.json --html report.html`
    """
    from lora_compose.benchmarks.serving.report.report import write_reports
    from lora_compose.benchmarks.serving.results.document import read_result

    document = read_result(result)
    summary = write_reports(document, html, markdown, quiet=as_json)
    if as_json:
        echo_json(_facts(document, summary))


@app.command()
def ratios(
    results: Annotated[list[Path], typer.Argument(help="Results of `bench serve`.", metavar="FILE...")],
    as_json: AsJson = False,
) -> None:
    """Compare the ratios to the base of several results, as a Markdown table.

    - `lora-compose bench ratios small.json large.json`
    """
    from lora_compose.benchmarks.serving.report.tables import side_by_side
    from lora_compose.benchmarks.serving.results.document import read_result
    from lora_compose.benchmarks.serving.results.summary import summarize

    documents = [read_result(path) for path in results]
    if as_json:
        echo_json([_facts(document, summarize(document)) for document in documents])
        return
    typer.echo(side_by_side(documents), nl=False)


@app.command()
def advise(
    result: Result,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of all requests that the most-used composition gets.")
    ] = 0.5,
    requests: Annotated[
        int, typer.Option(min=1, help="Requests that it gets before its adapters or weights change.")
    ] = 10_000,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Accept answers that differ from the exact stack's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend a way to serve these adapters under this traffic, with its cost and its limits.

    A run that is too noisy gives no recommendation, but the reasons and what to do. Exit code 1: there is no
    recommendation.

    - `lora-compose bench advise bench.json --share 0.8 --requests 100000`
    """
    from lora_compose.benchmarks.serving.results.advice import ExpectedTraffic
    from lora_compose.benchmarks.serving.results.advice import advise as advice_of
    from lora_compose.benchmarks.serving.results.document import read_result
    from lora_compose.benchmarks.serving.results.summary import summarize

    document = read_result(result)
    advice = advice_of(document, summarize(document), ExpectedTraffic(share, requests, accept_loss))
    if as_json:
        echo_json(asdict(advice))
    else:
        typer.echo(advice.text)
    raise typer.Exit(0 if advice.way else 1)


@app.command()
def compare(
    first: Result,
    second: Result,
    least: Annotated[float, typer.Option(min=0, help="Ignore changes smaller than this share.")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two results by more than noise. Exit code 1: something changed.

    Ratios to the base are compared, so a slower machine does not count as a change.

    - `lora-compose bench compare before.json after.json --least 0.03`
    """

    from lora_compose.benchmarks.serving.results.comparison import compare as comparison_of
    from lora_compose.benchmarks.serving.results.comparison import comparison_table
    from lora_compose.benchmarks.serving.results.document import read_result

    comparison = comparison_of(read_result(first), read_result(second), least)
    if as_json:
        echo_json(asdict(comparison) | {"is_changed": comparison.is_changed})
        raise typer.Exit(1 if comparison.is_changed else 0)
    stdout().print(comparison_table(comparison))
    for failure in comparison.failures:
        typer.echo(f"new: {failure}")
    typer.echo("changed" if comparison.is_changed else "no change")
    raise typer.Exit(1 if comparison.is_changed else 0)


def _facts(document: "BenchmarkResult", summary: "Summary") -> dict[str, Any]:
    """What `--json` prints: every arm in every cell, the advice and the caveats."""
    from lora_compose.benchmarks.serving.report.tables import caveats
    from lora_compose.benchmarks.serving.results.advice import ExpectedTraffic
    from lora_compose.benchmarks.serving.results.advice import advise as advice_of
    from lora_compose.benchmarks.serving.results.beside import beside_llamacpp

    advice = advice_of(document, summary, ExpectedTraffic())
    arms = [{**asdict(entry), "cell": entry.cell.id} for entry in summary.all]
    return {
        "base": document.base,
        "arms": arms,
        "advice": asdict(advice),
        "llamacpp": [row.to_json() for row in beside_llamacpp(document)],
        "caveats": caveats(document, summary),
    }


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _progress_output(progress: Literal["bar", "json"]) -> Iterator[Any]:
    if progress == "json":
        yield lambda done, total, what: print(  # noqa: T201  one line for each step
            json.dumps({"progress": {"done": done, "total": total, "what": what}}), flush=True
        )
        return
    if not stderr().is_terminal:
        typer.echo("benchmark: started. A line of progress follows now and then.", err=True)
    with progress_bar("benchmark") as step:
        yield step
