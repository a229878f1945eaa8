"""A result as one HTML page that needs no other file: a sentence, a chart, the advice, figures and tables.

The markup is in `page.html.jinja`; this module says what the page contains.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lora_compose.benchmarks.serving.report import charts
from lora_compose.benchmarks.serving.report.leading import chart, sentence
from lora_compose.benchmarks.serving.report.page_tables import page_tables
from lora_compose.benchmarks.serving.report.tables import caveats
from lora_compose.benchmarks.serving.results.advice import Advice
from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.summary import Summary

HERE = Path(__file__).parent
ORIGIN = (
    "command",
    "plan",
    "machine",
    "environment",
    "commands",
    "adapters",
    "workload_digest",
    "load_averages",
    "others_busy",
    "stolen",
)


@dataclass(frozen=True)
class Picture:
    """A titled figure."""

    title: str
    svg: Markup
    caption: str


def page(document: BenchmarkResult, summary: Summary, advice: Advice, crossovers: Sequence[str]) -> str:
    """The page. `crossovers` are sentences; those that the advice has already are left out.

    The same input always gives the same page.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    machine = document.machine
    content = document.model_dump(mode="json", include=set(ORIGIN))
    return environment.get_template("page.html.jinja").render(
        title=sentence(summary, advice),
        where=f"{document.base} on {machine.cpus} x {machine.cpu}, {document.created[:10]}",
        style=Markup((HERE / "page.css").read_text()),
        chart=chart(summary),
        is_noisy=bool(advice.noise),
        advice=advice.text.splitlines(),
        failed=summary.failed,
        requests=sum(arm.requests for arm in summary.all),
        caveats=caveats(document, summary),
        crossovers=[line for line in crossovers if line not in advice.text.splitlines()],
        pictures=list(_pictures(document, summary)),
        tables=list(page_tables(document, summary)),
        origin=[
            (key.replace("_", " "), json.dumps(content[key], indent=1, ensure_ascii=False))
            for key in ORIGIN
            if key in content
        ],
    )


def _pictures(document: BenchmarkResult, summary: Summary) -> Iterator[Picture]:
    arms = [arm for arm in summary.arms if "@" not in arm]
    cell = busiest_cell(summary)
    if cell is not None:
        yield _picture(
            "Speed and time per token, compared with the base",
            charts.ratio_intervals(summary, cell, arms),
            f"{cell.id}; median and 95 % interval.",
        )
        caption = f"Share of the samples that took at most this time. Further left is faster. {cell.id}."
        yield _picture("Distribution of latency", charts.distributions(document, cell, arms), caption)
    if any(cell.loop == "open" for cell in summary.cells):
        caption = (
            "Open loop. Latency counts from the time a request was due, so it includes waiting to be sent."
        )
        yield _picture("Latency by request rate", charts.latency_over_rate(summary, arms), caption)
    heat = charts.heat_map(summary)
    if heat is not None:
        caption = "Generated adapters, on the modules of the first adapter."
        yield _picture("Cost of a stack", heat, caption)
    line = document.timeline
    if line:
        events = "; ".join(f"{n}: {e.what} ({1000 * e.seconds:.0f} ms)" for n, e in enumerate(line.events, 1))
        caption = f"Stacks of two at {line.rate:.3g} requests a second. {events}."
        yield _picture("While adapters are registered and a stack is fused", charts.timeline(line), caption)


def _picture(title: str, svg: str, caption: str) -> Picture:
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return Picture(title, Markup(labelled), caption)
