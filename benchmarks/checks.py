"""What a study found, line by line: a number, the bound the project set for it, and whether it is kept."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lora_compose.benchmarks.machine import describe


@dataclass(frozen=True)
class BoundCheck:
    """`kept` is None where there is no bound."""

    name: str
    value: str
    bound: str = ""
    kept: bool | None = None


def at_most(name: str, value: float, bound: float, unit: str = "") -> BoundCheck:
    """A number that is to be small."""
    return BoundCheck(name, f"{value:.3g}{unit}", f"<= {bound:g}{unit}", value <= bound)


def at_least(name: str, value: float, bound: float) -> BoundCheck:
    """A number that is to be large."""
    return BoundCheck(name, f"{value:.3f}", f">= {bound:g}", value >= bound)


def show(title: str, checks: Sequence[BoundCheck], details: dict[str, Any]) -> bool:
    """Print a table and, as the last line, everything as JSON. Whether every bound is kept."""
    table = Table(title=f"{title}; load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for header in ("", "measured", "bound", ""):
        table.add_column(header)
    for check in checks:
        verdict = {None: "", True: "[green]kept[/]", False: "[red]missed[/]"}[check.kept]
        table.add_row(check.name, check.value, check.bound, verdict)
    Console(width=None if os.isatty(1) else 120).print(table)
    found = [asdict(check) for check in checks]
    print(json.dumps({"machine": describe(), "checks": found, **details}))  # noqa: T201  the result
    return all(check.kept is not False for check in checks)
