"""A comparison for people."""

from rich.table import Table

from benchmarks.latency.comparison import Comparison


def comparison_table(found: Comparison) -> Table:
    """What moved, or else the five largest differences that are noise."""
    table = Table("cell", "arm", "ratio to base of", "second/first", "p", "", box=None, pad_edge=False)
    moved = [one for one in found.changes if one.changed]
    for one in moved or sorted(found.changes, key=lambda each: each.p)[:5]:
        verdict = "[red]changed[/]" if one.changed else "noise"
        table.add_row(one.cell.id, one.arm, one.metric, f"{one.ratio:.3f}", f"{one.p:.3g}", verdict)
    base = (
        "" if found.base is None else f"; the base itself ran at {found.base:.2f} of the first run's tokens/s"
    )
    table.caption = f"{len(found.changes)} numbers compared, p after Holm's correction{base}"
    table.caption_justify = "left"
    return table
