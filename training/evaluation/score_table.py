"""An evaluation for people."""

from rich.markup import escape
from rich.table import Table

from training.evaluation.evaluate import Report


def score_table(report: Report) -> Table:
    """One line a task with its interval and the base's share; then every other figure."""
    table = Table(
        f"[b]{escape(report.model)}[/]", "right", "of", "share", "95 %", "base", box=None, pad_edge=False
    )
    base = {each.task: each.share for each in report.base}
    for each in report.tasks:
        low, high = each.interval
        before = f"{base[each.task]:.3f}" if each.task in base else ""
        table.add_row(
            f"{each.kind}: {escape(each.task)}",
            str(each.right),
            str(each.count),
            f"{each.share:.3f}",
            f"{low:.3f}..{high:.3f}",
            before,
        )
    for name, value in report.scores.items():
        if not name.startswith("task:"):
            count, interval = str(report.counts.get(name, "")), report.intervals.get(name)
            sure = "" if interval is None else f"{interval[0]:.3f}..{interval[1]:.3f}"
            table.add_row(f"[b]{escape(name)}[/]", "", count, f"[b]{value:.3f}[/]", sure, "")
    return table


def wrong_answers(report: Report, count: int) -> Table:
    """The first of each task."""
    table = Table("task", "asked", "answered", "right", box=None, pad_edge=False)
    for each in report.tasks:
        for wrong in each.wrong[:count]:
            asked = wrong.question.prompt[-1]["content"]
            table.add_row(*map(escape, (each.task, asked, wrong.answer, wrong.question.answer)))
    return table
