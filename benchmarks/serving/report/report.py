"""A result for people: on the terminal, as Markdown, as a page. From its JSON only, so it can be remade."""

from pathlib import Path

from rich.console import Console

from lora_compose.benchmarks.serving.report.tables import doubts, markdown, terminal_tables
from lora_compose.benchmarks.serving.results.advice import ExpectedTraffic, advise
from lora_compose.benchmarks.serving.results.crossovers import crossovers
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.summary import Findings, findings


def write_reports(
    document: BenchmarkResult, html: Path | None, text: Path | None, *, quiet: bool
) -> Findings:
    """To the files that are given, and to the terminal unless `quiet`."""
    found = findings(document)
    advice = advise(document, found, ExpectedTraffic())
    points = crossovers(document, found)
    if html is not None:
        from lora_compose.benchmarks.serving.report.page import page

        html.write_text(page(document, found, advice.text, [one.sentence for one in points]))
    if text is not None:
        text.write_text(markdown(document, found, advice.text, [one.sentence for one in points]))
    if not quiet:
        _show(document, found, advice.text)
    return found


def _show(document: BenchmarkResult, found: Findings, advice: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    for table in terminal_tables(found):
        console.print(table, "")
    for line in doubts(document, found):
        console.print(f"[yellow]doubt:[/] {line}", highlight=False)
    console.print("", advice, sep="\n", highlight=False, markup=False)
