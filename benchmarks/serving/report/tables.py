"""The findings of a result as tables: for a terminal and as Markdown."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.metrics import Quantity
from lora_compose.benchmarks.serving.results.summary import BASE, ArmSummary, Findings, findings
from lora_compose.benchmarks.statistics import Spread

HEADERS = (
    *("arm", "n", "TTFT ms", "TPOT ms", "E2EL ms", "E2EL p90/p99", "tokens/s", "goodput/s"),
    *("tokens/s to base (95 %)", "TPOT to base (95 %)", "failed"),
)


def cells(one: ArmSummary) -> list[str]:
    """One line of either table."""
    quantities = one.quantities
    e2el = quantities.get("e2el")
    return [
        one.arm,
        str(one.requests),
        *(_median(quantities.get(metric)) for metric in ("ttft", "tpot", "e2el")),
        "" if e2el is None else f"{ms(e2el.p90)}/{ms(e2el.p99)}",
        "" if one.output_throughput is None else f"{one.output_throughput.median:.0f}",
        "" if one.goodput is None else f"{one.goodput.median:.3g}",
        ratio(one.ratios.get("output_throughput")),
        ratio(one.ratios.get("tpot")),
        str(one.failed),
    ]


def ratio(one: Spread | None) -> str:
    """With its interval."""
    return "" if one is None else f"{one.median:.3f} ({one.low:.3f}..{one.high:.3f})"


def _median(one: Quantity | None) -> str:
    return "" if one is None else ms(one.median)


def ms(seconds: float | None) -> str:
    """Milliseconds; a dash where too few samples told them."""
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def terminal_tables(found: Findings) -> list[Table]:
    """One a cell."""
    made = []
    for cell in found.cells:
        table = Table(title=cell.id, title_justify="left", box=None, pad_edge=False)
        for number, header in enumerate(HEADERS):
            table.add_column(header, justify="left" if not number else "right")
        for one in found.all:
            if one.cell == cell:
                table.add_row(*map(escape, cells(one)), style="red" if one.failed else None)
        made.append(table)
    return made


def doubts(document: BenchmarkResult, found: Findings) -> list[str]:
    """Everything that makes the numbers doubtful, one a line."""
    lines = [f"{one.cell.id}, {one.arm}: {flag}" for one in found.all for flag in one.flags]
    lines += [f"{arm} was left out: {why}" for arm, why in document.skipped.items()]
    lines += document.caveats
    lines += [
        f"{one.arm}: answers no prompt otherwise than the base, so a mix-up with it would not show"
        for one in document.unlike_base
        if not one.prompts
    ]
    if document.truncated:
        lines.append("--max-seconds ended the run before every repeat was measured")
    return lines


def markdown(document: BenchmarkResult, found: Findings, advice: str, points: Sequence[str]) -> str:
    """The whole report."""
    machine = document.machine
    lines = [
        f"`{document.base}` on {machine.cpus} x {machine.cpu}, {document.created}, commit "
        f"{(machine.commit or 'unknown')[:10]}; medians; a dash is a percentile of too few samples.",
        "",
        *advice.splitlines(),
    ]
    for cell in found.cells:
        lines += ["", f"**{cell.id}**", "", _row(HEADERS), _row(["---"] * len(HEADERS))]
        lines += [_row(cells(one)) for one in found.all if one.cell == cell]
    if points:
        lines += ["", *(f"- {point}" for point in points)]
    if doubtful := doubts(document, found):
        lines += ["", "To be doubted:", "", *(f"- {line}" for line in doubtful)]
    return "\n".join(lines) + "\n"


def side_by_side(documents: Sequence[BenchmarkResult]) -> str:
    """Arms by rows, results by columns: throughput in the busiest closed loop, to the base's, and 95 %."""
    found = [findings(document) for document in documents]
    cells_ = [busiest_cell(one) for one in found]
    arms = dict.fromkeys(arm for one in found for arm in one.arms if arm != BASE and "@" not in arm)
    heads = [
        f"`{document.base}`, {cell.id if cell else None}"
        for document, cell in zip(documents, cells_, strict=True)
    ]
    lines = [_row(["tokens a second, to the base's", *heads]), _row(["---"] * (1 + len(heads)))]
    for arm in arms:
        each = [one.of(cell, arm) if cell else None for one, cell in zip(found, cells_, strict=True)]
        told = [ratio(one.ratios.get("output_throughput")) if one else "" for one in each]
        lines.append(_row([f"`{arm}`", *told]))
    return "\n".join(lines) + "\n"


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"
