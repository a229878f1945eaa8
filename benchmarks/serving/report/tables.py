"""The summary of a result as tables for a terminal and as Markdown."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from lora_compose.benchmarks.serving.report import llamacpp_table
from lora_compose.benchmarks.serving.results.beside import beside_llamacpp, split_batches
from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.metrics import MetricStats
from lora_compose.benchmarks.serving.results.summary import BASE, ArmSummary, Summary, summarize
from lora_compose.benchmarks.statistics import Spread

HEADERS = (
    *("arm", "n", "TTFT ms", "TPOT ms", "E2EL ms", "E2EL p90/p99", "tokens/s", "goodput/s"),
    *("tokens/s vs base (95 %)", "TPOT vs base (95 %)", "failed"),
)


def cells(arm: ArmSummary) -> list[str]:
    """The values of one line, in the order of HEADERS."""
    metrics = arm.metrics
    e2el = metrics.get("e2el")
    return [
        arm.arm,
        str(arm.requests),
        *(_median(metrics.get(metric)) for metric in ("ttft", "tpot", "e2el")),
        "" if e2el is None else f"{ms(e2el.p90)}/{ms(e2el.p99)}",
        "" if arm.output_throughput is None else f"{arm.output_throughput.median:.0f}",
        "" if arm.goodput is None else f"{arm.goodput.median:.3g}",
        ratio(arm.ratios.get("output_throughput")),
        ratio(arm.ratios.get("tpot")),
        str(arm.failed),
    ]


def ratio(value: Spread | None) -> str:
    """A ratio with its interval, which needs two repeats. Empty if there is no ratio."""
    if value is None:
        return ""
    return f"{value.median:.3f} ({f'{value.low:.3f}..{value.high:.3f}' if value.count > 1 else 'one repeat'})"


def _median(stats: MetricStats | None) -> str:
    return "" if stats is None else ms(stats.median)


def ms(seconds: float | None) -> str:
    """Milliseconds. A dash if there were too few samples."""
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def terminal_tables(summary: Summary) -> list[Table]:
    """One table for each cell."""
    tables = []
    for cell in summary.cells:
        table = Table(title=cell.id, title_justify="left", box=None, pad_edge=False)
        for number, header in enumerate(HEADERS):
            table.add_column(header, justify="left" if not number else "right")
        for arm in summary.all:
            if arm.cell == cell:
                table.add_row(*map(escape, cells(arm)), style="red" if arm.failed else None)
        tables.append(table)
    return tables


def caveats(document: BenchmarkResult, summary: Summary) -> list[str]:
    """All reasons not to trust some of the numbers, one in each line."""
    lines = [f"{arm.cell.id}, {arm.arm}: {flag}" for arm in summary.all for flag in arm.flags]
    lines += [f"{arm} was not measured: {why}" for arm, why in document.skipped.items()]
    lines += [*document.caveats, *split_batches(document)]
    lines += [
        f"{unlike.arm}: all its answers are equal to the base's, so an answer that came from the base by "
        "mistake would not be noticed"
        for unlike in document.unlike_base
        if not unlike.prompts
    ]
    if document.truncated:
        lines.append(
            "the time limit of --max-seconds or --quick ended the run before every repeat was measured"
        )
    return lines


def markdown(document: BenchmarkResult, summary: Summary, advice: str, points: Sequence[str]) -> str:
    """The whole report as Markdown."""
    machine = document.machine
    lines = [
        f"`{document.base}` on {machine.cpus} x {machine.cpu}, {document.created}, commit "
        f"{(machine.commit or 'unknown')[:10]}. The figures are medians. "
        "A dash means that there were too few samples for a percentile.",
        "",
        *advice.splitlines(),
    ]
    for cell in summary.cells:
        lines += ["", f"**{cell.id}**", "", _row(HEADERS), _row(["---"] * len(HEADERS))]
        lines += [_row(cells(arm)) for arm in summary.all if arm.cell == cell]
    if beside := beside_llamacpp(document):
        heads = llamacpp_table.HEADERS
        lines += ["", f"**{llamacpp_table.TITLE}**", "", _row(heads), _row(["---"] * len(heads))]
        lines += [_row(llamacpp_table.beside_cells(row)) for row in beside]
    if points:
        lines += ["", *(f"- {point}" for point in points)]
    if listed := caveats(document, summary):
        lines += ["", "Caveats:", "", *(f"- {line}" for line in listed)]
    return "\n".join(lines) + "\n"


def side_by_side(documents: Sequence[BenchmarkResult]) -> str:
    """Throughput relative to the base, in the busiest closed loop of each result, with 95 % intervals.

    A Markdown table with a row for each arm and a column for each result.
    """
    summaries = [summarize(document) for document in documents]
    busiest = [busiest_cell(summary) for summary in summaries]
    arms = dict.fromkeys(
        arm for summary in summaries for arm in summary.arms if arm != BASE and "@" not in arm
    )
    heads = [
        f"`{document.base}`, {cell.id if cell else None}"
        for document, cell in zip(documents, busiest, strict=True)
    ]
    lines = [_row(["tokens/s relative to the base (95 %)", *heads]), _row(["---"] * (1 + len(heads)))]
    for arm in arms:
        measured = [
            summary.find(cell, arm) if cell else None
            for summary, cell in zip(summaries, busiest, strict=True)
        ]
        ratios = [ratio(entry.ratios.get("output_throughput")) if entry else "" for entry in measured]
        lines.append(_row([f"`{arm}`", *ratios]))
    return "\n".join(lines) + "\n"


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"
