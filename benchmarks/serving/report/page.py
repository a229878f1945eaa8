"""A result as one HTML page that needs no other file: the advice, the caveats, the tables and the figures.

The markup is in `page.html.jinja`; this module says what the page contains.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import BaseModel

from lora_compose.benchmarks.serving.report import charts, llamacpp_table
from lora_compose.benchmarks.serving.report.tables import caveats, ms, ratio
from lora_compose.benchmarks.serving.results.beside import beside_llamacpp
from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.metrics import MetricStats
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Summary

HERE = Path(__file__).parent
HEADERS = (
    *("arm", "requests", "TTFT ms", "TPOT ms", "ITL ms", "E2EL ms", "E2EL p90", "E2EL p99", "tokens/s"),
    *("requests/s", "goodput/s", "tokens/s vs base (95 %)", "TPOT vs base (95 %)", "failed"),
)
ORIGIN = (
    "command",
    "plan",
    "machine",
    "environment",
    "commands",
    "adapters",
    "workload_digest",
    "load_averages",
)


@dataclass(frozen=True)
class PageRow:
    """One line of a table. It is highlighted if `failed`."""

    values: Sequence[str]
    failed: bool = False


@dataclass(frozen=True)
class PageTable:
    """A titled table."""

    title: str
    headers: Sequence[str]
    rows: Sequence[PageRow]


@dataclass(frozen=True)
class Picture:
    """A titled figure."""

    title: str
    svg: Markup
    caption: str


def page(document: BenchmarkResult, summary: Summary, advice: str, crossovers: Sequence[str]) -> str:
    """The page. Each line of `advice` is a paragraph; `crossovers` are sentences.

    The same input always gives the same page.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    machine, plan = document.machine, document.plan
    content = document.model_dump(mode="json", include=set(ORIGIN))
    return environment.get_template("page.html.jinja").render(
        title=f"Cost of serving adapters: {document.base}",
        where=f"{machine.cpus} x {machine.cpu}, {document.created}, commit {machine.commit}",
        style=Markup((HERE / "page.css").read_text()),
        advice=advice.splitlines(),
        failed=summary.failed,
        requests=sum(arm.requests for arm in summary.all),
        caveats=caveats(document, summary),
        caption=(
            f"The figures are medians. There were {plan.repeats} repeats; prompts have {plan.prompt_tokens} "
            f"tokens and answers {plan.output_tokens}. Goodput counts the requests that met "
            f"{', '.join(plan.goodput)} (ms). A dash means that there were too few samples."
        ),
        cells=[_cell_table(summary, cell) for cell in summary.cells],
        pictures=list(_pictures(document, summary)),
        crossovers=crossovers,
        tables=list(_small_tables(document)),
        origin=[
            (key.replace("_", " "), json.dumps(content[key], indent=1, ensure_ascii=False)) for key in ORIGIN
        ],
    )


def _cell_table(summary: Summary, cell: Cell) -> PageTable:
    rows = [PageRow(_values(arm), arm.failed > 0) for arm in summary.all if arm.cell == cell]
    return PageTable(cell.id, HEADERS, rows)


def _values(arm: ArmSummary) -> list[str]:
    def median(metric: str) -> str:
        return ms(arm.metrics[metric].median) if metric in arm.metrics else "-"

    whole: MetricStats | None = arm.metrics.get("e2el")
    tails = (None, None) if whole is None else (whole.p90, whole.p99)
    rates = [arm.output_throughput, arm.request_throughput, arm.goodput]
    return [
        arm.arm,
        str(arm.requests),
        *(median(metric) for metric in ("ttft", "tpot", "itl", "e2el")),
        *(ms(tail) for tail in tails),
        *("-" if rate is None else f"{rate.median:,.{0 if rate.median >= 100 else 1}f}" for rate in rates),
        ratio(arm.ratios.get("output_throughput")) or "-",
        ratio(arm.ratios.get("tpot")) or "-",
        str(arm.failed),
    ]


def _pictures(document: BenchmarkResult, summary: Summary) -> Iterator[Picture]:
    arms = [arm for arm in summary.arms if "@" not in arm]
    cell = busiest_cell(summary)
    if cell is not None:
        yield _picture(
            "Compared with the base",
            charts.ratio_intervals(summary, cell, arms),
            f"{cell.id}; median and 95 % interval.",
        )
        caption = f"Empirical distributions; {cell.id}."
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


def _small_tables(document: BenchmarkResult) -> Iterator[PageTable]:
    """Tables of llama.cpp, first uses, switches, memory and differences. Empty ones are left out."""
    if beside := beside_llamacpp(document):
        lines = [PageRow(llamacpp_table.beside_cells(row)) for row in beside]
        yield PageTable(llamacpp_table.TITLE, llamacpp_table.HEADERS, lines)
    columns = ("same_answers", "mean_abs_logprob", "max_abs_logprob")
    for title, parts, names, scale in (
        (
            "First and second use: time to first token, ms",
            document.cold,
            ("first_use_ttft", "warm_ttft"),
            1000,
        ),
        ("Switches of the base weights, ms", document.switches, ("what", "seconds"), 1000),
        ("In host memory", document.memory, ("id", "bytes", "prepare_seconds"), 1),
        ("Difference from the exact stack (log-probabilities in nats)", document.differences, columns, 1),
    ):
        if parts:
            yield _table(title, parts, names, scale)


def _table(title: str, parts: Sequence[BaseModel], columns: Sequence[str], scale: float) -> PageTable:
    rows = [part.model_dump() for part in parts]
    names = [*(name for name in ("arm", "model") if name in rows[0]), *columns]
    lines = [PageRow([_cell_text(row[name], scale) for name in names]) for row in rows]
    return PageTable(title, [name.replace("_", " ") for name in names], lines)


def _cell_text(value: object, scale: float) -> str:
    if isinstance(value, float):
        return f"{scale * value:.4g}"
    return "" if value is None else str(value)
