"""A result as one HTML page that needs no other file: advice, then caveats, tables and pictures.

The markup is in `page.html.jinja`; this module says what the page contains.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import BaseModel

from lora_compose.benchmarks.serving.report import charts
from lora_compose.benchmarks.serving.report.tables import doubts, ms, ratio
from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.metrics import Quantity
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Findings

HERE = Path(__file__).parent
HEADERS = (
    *("arm", "requests", "TTFT ms", "TPOT ms", "ITL ms", "E2EL ms", "E2EL p90", "E2EL p99", "tokens/s"),
    *("requests/s", "goodput/s", "tokens/s to base (95 %)", "TPOT to base (95 %)", "failed"),
)
MADE = (
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
    """One line of a table; `failed` marks it."""

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


def page(document: BenchmarkResult, found: Findings, advice: str, crossovers: Sequence[str]) -> str:
    """`advice` has a paragraph a line; `crossovers` are sentences. Same input, same page."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    machine, plan = document.machine, document.plan
    content = document.model_dump(mode="json", include=set(MADE))
    return environment.get_template("page.html.jinja").render(
        title=f"What serving adapters costs: {document.base}",
        where=f"{machine.cpus} x {machine.cpu}, {document.created}, commit {machine.commit}",
        style=Markup((HERE / "page.css").read_text()),
        advice=advice.splitlines(),
        failed=found.failed,
        requests=sum(one.requests for one in found.all),
        doubts=doubts(document, found),
        caption=(
            f"Medians; prompts of {plan.prompt_tokens} tokens, answers of {plan.output_tokens}, "
            f"{plan.repeats} repeats; goodput is what met {', '.join(plan.goodput)} (ms). "
            "A dash: too few samples."
        ),
        cells=[_cell_table(found, cell) for cell in found.cells],
        pictures=list(_pictures(document, found)),
        crossovers=crossovers,
        tables=list(_small_tables(document)),
        made=[
            (key.replace("_", " "), json.dumps(content[key], indent=1, ensure_ascii=False)) for key in MADE
        ],
    )


def _cell_table(found: Findings, cell: Cell) -> PageTable:
    rows = [PageRow(_values(one), one.failed > 0) for one in found.all if one.cell == cell]
    return PageTable(cell.id, HEADERS, rows)


def _values(one: ArmSummary) -> list[str]:
    def median(metric: str) -> str:
        return ms(one.quantities[metric].median) if metric in one.quantities else "-"

    whole: Quantity | None = one.quantities.get("e2el")
    tails = (None, None) if whole is None else (whole.p90, whole.p99)
    rates = [one.output_throughput, one.request_throughput, one.goodput]
    return [
        one.arm,
        str(one.requests),
        *(median(metric) for metric in ("ttft", "tpot", "itl", "e2el")),
        *(ms(tail) for tail in tails),
        *("-" if rate is None else f"{rate.median:,.{0 if rate.median >= 100 else 1}f}" for rate in rates),
        ratio(one.ratios.get("output_throughput")) or "-",
        ratio(one.ratios.get("tpot")) or "-",
        str(one.failed),
    ]


def _pictures(document: BenchmarkResult, found: Findings) -> Iterator[Picture]:
    arms = [arm for arm in found.arms if "@" not in arm]
    cell = busiest_cell(found)
    if cell is not None:
        yield _picture(
            "Against the base", charts.ratio_intervals(found, cell, arms), f"{cell.id}; median and 95 %."
        )
        caption = f"Empirical distributions; {cell.id}."
        yield _picture("How long people wait", charts.distributions(document, cell, arms), caption)
    if any(one.loop == "open" for one in found.cells):
        caption = "Open loop, from when a request was due: waiting to be sent counts."
        yield _picture("Latency against rate", charts.latency_over_rate(found, arms), caption)
    heat = charts.heat_map(found)
    if heat is not None:
        caption = "Generated adapters on every module the first adapter has."
        yield _picture("What a stack costs", heat, caption)
    line = document.timeline
    if line:
        events = "; ".join(f"{n}: {e.what} ({1000 * e.seconds:.0f} ms)" for n, e in enumerate(line.events, 1))
        caption = f"Stacks of two at {line.rate:.3g} requests a second. {events}."
        yield _picture("While adapters come and a stack is fused", charts.timeline(line), caption)


def _picture(title: str, svg: str, caption: str) -> Picture:
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return Picture(title, Markup(labelled), caption)


def _small_tables(document: BenchmarkResult) -> Iterator[PageTable]:
    """First uses, switches, memory and differences, as far as there are any."""
    columns = ("same_answers", "mean_abs_logprob", "max_abs_logprob")
    for title, parts, names, scale in (
        ("First use and later, ms to the first token", document.cold, ("first_use_ttft", "warm_ttft"), 1000),
        ("Switches of the base, ms", document.switches, ("what", "seconds"), 1000),
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
