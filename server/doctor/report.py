"""What was found, as a table for people."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from server.doctor.finding import Result

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def table(results: Iterable[Result]) -> Table:
    """One row a check; what to do stands under what was found."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(4):
        made.add_column(overflow="fold")
    before = ""
    for result in results:
        section = result.section if result.section != before else ""
        found = Text(result.sentence)
        if result.advice:
            found.append(f"\n-> {result.advice}", style="dim")
        made.add_row(
            Text(section, "bold"), Text(result.name), Text(result.status, STYLES[result.status]), found
        )
        before = result.section
    return made


def summary(results: list[Result]) -> str:
    """One line: how many of each."""
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    if counts["fail"]:
        return f"{counts['fail']} failed, {counts['warn']} to look at, {counts['ok']} fine"
    return f"nothing failed: {counts['warn']} to look at, {counts['ok']} fine"
