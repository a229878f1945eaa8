"""Writes the report of a result: to the terminal, as Markdown and as an HTML page.

The report depends on the result's JSON only, so it can be written again at any time.
"""

from pathlib import Path

from lora_compose.adapters.terminal import stdout
from lora_compose.benchmarks.serving.report.llamacpp_table import beside_table
from lora_compose.benchmarks.serving.report.tables import caveats, markdown, terminal_tables
from lora_compose.benchmarks.serving.results.advice import ExpectedTraffic, advise
from lora_compose.benchmarks.serving.results.beside import beside_llamacpp
from lora_compose.benchmarks.serving.results.crossovers import crossovers
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.summary import Summary, summarize


def write_reports(document: BenchmarkResult, html: Path | None, text: Path | None, *, quiet: bool) -> Summary:
    """Write the report to the given files, and to the terminal unless `quiet`."""
    summary = summarize(document)
    advice = advise(document, summary, ExpectedTraffic())
    points = [] if advice.noise else [point.sentence for point in crossovers(document, summary)]
    if html is not None:
        from lora_compose.benchmarks.serving.report.page import page

        html.write_text(page(document, summary, advice, points))
    if text is not None:
        text.write_text(markdown(document, summary, advice.text, points))
    if not quiet:
        _show(document, summary, advice.text)
    return summary


def _show(document: BenchmarkResult, summary: Summary, advice: str) -> None:
    console = stdout()
    for table in terminal_tables(summary):
        console.print(table, "")
    if beside := beside_llamacpp(document):
        console.print(beside_table(beside), "")
    for line in caveats(document, summary):
        console.print(f"[yellow]caveat:[/] {line}", highlight=False)
    console.print("", advice, sep="\n", highlight=False, markup=False)
