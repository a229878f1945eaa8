"""The checks of a study. Each has a measured number, the project's bound for it, and whether it is within."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from lora_compose.adapters.terminal import stdout
from lora_compose.benchmarks.machine import describe


@dataclass(frozen=True)
class BoundCheck:
    """One measured number. `kept` is None if there is no bound."""

    name: str
    value: str
    bound: str = ""
    kept: bool | None = None


def at_most(name: str, value: float, bound: float, unit: str = "") -> BoundCheck:
    """A check that passes if `value` is at most `bound`."""
    return BoundCheck(name, f"{value:.3g}{unit}", f"<= {bound:g}{unit}", value <= bound)


def at_least(name: str, value: float, bound: float) -> BoundCheck:
    """A check that passes if `value` is at least `bound`."""
    return BoundCheck(name, f"{value:.3f}", f">= {bound:g}", value >= bound)


def show(title: str, checks: Sequence[BoundCheck], details: dict[str, Any]) -> bool:
    """Print a table and then one line of JSON. Returns whether no bound was missed."""
    table = Table(title=f"{title}; load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for header in ("", "measured", "bound", ""):
        table.add_column(header)
    for check in checks:
        verdict = {None: "", True: "[green]kept[/]", False: "[red]missed[/]"}[check.kept]
        table.add_row(check.name, check.value, check.bound, verdict)
    stdout().print(table)
    rows = [asdict(check) for check in checks]
    print(json.dumps({"machine": describe(), "checks": rows, **details}))  # noqa: T201  the result
    return all(check.kept is not False for check in checks)
