"""A result as one HTML page that needs nothing else: advice, then what is doubtful, tables and pictures."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from pydantic import BaseModel

from benchmarks.latency import charts
from benchmarks.latency.crossovers import busiest_cell
from benchmarks.latency.document import BenchmarkResult
from benchmarks.latency.findings import Finding, Findings
from benchmarks.latency.plan import Cell
from benchmarks.latency.quantities import Quantity
from benchmarks.latency.tables import doubts, ms, ratio

STYLE = Path(__file__).with_name("page.css")
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


def page(
    document: BenchmarkResult, found: Findings, advice: str, crossovers: Sequence[tuple[str, str]]
) -> str:
    """`advice` has a paragraph a line; `crossovers` are names and sentences. Same input, same page."""
    title = f"What serving adapters costs: {document.base}"
    machine, content = document.machine, document.model_dump(mode="json", include=set(MADE))
    made = {key: content[key] for key in MADE}
    where = f"{machine.cpus} x {machine.cpu}, {document.created}, commit {machine.commit}"
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(where)}</p>",
        f'<div class="advice">{_paragraphs(advice.splitlines())}</div>',
        _doubtful(document, found),
        *(_cell(document, found, cell) for cell in found.cells),
        *_pictures(document, found),
        _list("When it pays", [sentence for _, sentence in crossovers]),
        *_small_tables(document),
        "<h2>How it was made</h2>",
        *(_made(key, value) for key, value in made.items()),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head><body>"
    )
    return head + "\n".join(parts) + "</body></html>\n"


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _list(title: str, lines: Sequence[str], kind: str = "") -> str:
    if not lines:
        return ""
    items = "".join(f'<li class="{kind}">{escape(line)}</li>' for line in lines)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>"


def _doubtful(document: BenchmarkResult, found: Findings) -> str:
    total = sum(one.requests for one in found.all)
    failed = (
        f'<p class="bad">{found.failed} of {total} requests failed or were answered wrongly.</p>'
        if found.failed
        else f"<p>{total} requests, none failed, every answer was the arm's own.</p>"
    )
    return failed + _list("To be doubted", doubts(document, found), "doubt")


def _cell(document: BenchmarkResult, found: Findings, cell: Cell) -> str:
    plan = document.plan
    lines = "".join(
        f'<tr class="{"failed" if one.failed else ""}">' + "".join(map(_data, _values(one))) + "</tr>"
        for one in found.all
        if one.cell == cell
    )
    caption = (
        f"Medians; prompts of {plan.prompt_tokens} tokens, answers of {plan.output_tokens}, "
        f"{plan.repeats} repeats; goodput is what met {', '.join(plan.goodput)} (ms). "
        "A dash: too few samples."
    )
    heads = "".join(f"<th>{escape(header)}</th>" for header in HEADERS)
    return f"<h2>{escape(cell.id)}</h2><p>{escape(caption)}</p>{_grid(heads, lines)}"


def _values(one: Finding) -> list[str]:
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


def _data(value: str) -> str:
    return f"<td>{escape(value)}</td>"


def _pictures(document: BenchmarkResult, found: Findings) -> Iterable[str]:
    arms = [arm for arm in found.arms if "@" not in arm]
    cell = busiest_cell(found)
    if cell is not None:
        yield _figure(
            "Against the base", charts.ratio_intervals(found, cell, arms), f"{cell.id}; median and 95 %."
        )
        caption = f"Empirical distributions; {cell.id}."
        yield _figure("How long people wait", charts.distributions(document, cell, arms), caption)
    if any(one.loop == "open" for one in found.cells):
        caption = "Open loop, from when a request was due: waiting to be sent counts."
        yield _figure("Latency against rate", charts.latency_over_rate(found, arms), caption)
    heat = charts.heat_map(found)
    if heat is not None:
        yield _figure("What a stack costs", heat, "Generated adapters on every module the first adapter has.")
    line = document.timeline
    if line:
        events = "; ".join(f"{n}: {e.what} ({1000 * e.seconds:.0f} ms)" for n, e in enumerate(line.events, 1))
        caption = f"Stacks of two at {line.rate:.3g} requests a second. {events}."
        yield _figure("While adapters come and a stack is fused", charts.timeline(line), caption)


def _figure(title: str, picture: str, caption: str) -> str:
    labelled = picture.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return (
        f'<h2>{escape(title)}</h2><figure><div class="box">{labelled}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _small_tables(document: BenchmarkResult) -> Iterable[str]:
    """First uses, switches, memory and differences."""
    yield _table(
        "First use and later, ms to the first token", document.cold, ("first_use_ttft", "warm_ttft"), 1000
    )
    yield _table("Switches of the base, ms", document.switches, ("what", "seconds"), 1000)
    yield _table("In host memory", document.memory, ("id", "bytes", "prepare_seconds"), 1)
    columns = ("same_answers", "mean_abs_logprob", "max_abs_logprob")
    yield _table(
        "Difference from the exact stack (log-probabilities in nats)", document.differences, columns, 1
    )


def _table(title: str, parts: Sequence[BaseModel], columns: Sequence[str], scale: float) -> str:
    if not parts:
        return ""
    rows = [part.model_dump() for part in parts]
    named = [name for name in ("arm", "model") if name in rows[0]]
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in [*named, *columns])
    lines = "".join(
        "<tr>" + "".join(_data(_cell_text(row.get(name), scale)) for name in [*named, *columns]) + "</tr>"
        for row in rows
    )
    return f"<h2>{escape(title)}</h2>{_grid(heads, lines)}"


def _grid(heads: str, lines: str) -> str:
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="box">{table}</div>'


def _cell_text(value: object, scale: float) -> str:
    if isinstance(value, float):
        return f"{scale * value:.4g}"
    return "" if value is None else str(value)


def _made(key: str, value: object) -> str:
    text = escape(json.dumps(value, indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(key.replace('_', ' '))}</summary><pre>{text}</pre></details>"
