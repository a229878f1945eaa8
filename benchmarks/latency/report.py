"""A result for people: on the terminal, as Markdown, as a page. From its JSON only, so it can be remade."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from adapters.errors import InvalidRequest
from benchmarks.latency.advice import Traffic, advise
from benchmarks.latency.crossovers import crossovers
from benchmarks.latency.findings import Findings, findings
from benchmarks.latency.tables import doubts, markdown, terminal_tables

SCHEMA = "lora-compose-bench/1"


def read_result(path: Path) -> dict[str, Any]:
    """Raises InvalidRequest("no_result") for anything else."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest("no_result", f"{path} cannot be read as a result: {error}", "result") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InvalidRequest("no_result", f"{path} was not written by `lora-compose bench serve`", "result")
    return document


def write_reports(document: dict[str, Any], html: Path | None, text: Path | None, *, quiet: bool) -> Findings:
    """To the files that are given, and to the terminal unless `quiet`."""
    found = findings(document)
    advice = advise(document, found, Traffic())
    points = crossovers(document, found)
    if html is not None:
        from benchmarks.latency.page import page

        html.write_text(page(document, found, advice.text, [(one.what, one.sentence) for one in points]))
    if text is not None:
        text.write_text(markdown(document, found, advice.text, [one.sentence for one in points]))
    if not quiet:
        _show(document, found, advice.text)
    return found


def _show(document: dict[str, Any], found: Findings, advice: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    for table in terminal_tables(found):
        console.print(table, "")
    for line in doubts(document, found):
        console.print(f"[yellow]doubt:[/] {line}", highlight=False)
    console.print("", advice, sep="\n", highlight=False, markup=False)
