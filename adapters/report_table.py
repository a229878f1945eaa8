"""A merge's report for people to read: the whole in one line, then the modules it hurt most."""

from rich.filesize import decimal
from rich.table import Table

from adapters.report import MergeReport, ModuleReport

WORST = 5


def report_table(report: MergeReport, worst: int = WORST) -> Table:
    """The overall figures and the `worst` modules by relative error."""
    table = Table("module", "relative error", "sign conflict", "overlap", "rank", box=None, pad_edge=False)
    table.add_row(
        f"[bold]all {len(report.modules)} modules[/]",
        _error(report.relative_error),
        f"{report.sign_conflict:.3f}",
        f"{report.subspace_overlap:.3f}",
        str(report.rank),
    )
    for name, module in sorted(report.modules.items(), key=_badness)[:worst]:
        table.add_row(
            name,
            _error(module.relative_error),
            f"{module.sign_conflict:.3f}",
            f"{module.subspace_overlap:.3f}",
            str(module.rank),
        )
    cost = f"{report.method}, {decimal(report.bytes)}, {report.seconds:.1f} s."
    table.caption = f"{cost} Error: Frobenius, against the exact stack."
    table.caption_justify = "left"
    return table


def _badness(row: tuple[str, ModuleReport]) -> tuple[float, str]:
    """Worst first; a module whose error has no size to compare with is worse than any."""
    name, module = row
    return (float("-inf") if module.relative_error is None else -module.relative_error, name)


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.2e}" if error < 0.001 else f"{error:.3f}"
