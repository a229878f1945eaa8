"""A run for people, as a table, and for machines, as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.measuring import Measured
from benchmarks.passes import Pass
from benchmarks.summary import Finding

CAPTION = (
    "A ratio is taken inside a round, to the first arm of its block; the median is over rounds. Throughput "
    "is to be at least the bound, prefill time at most. Rounds with a failed request are left out."
)


def findings_table(found: Sequence[Finding], title: str) -> Table:
    """One line an arm, one block a phase."""
    table = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    for header in ("phase", "arm"):
        table.add_column(header)
    for header in ("value", "ratio", "min..max", "95% of median", "bound", "failed"):
        table.add_column(header, justify="right")
    phase = None
    for finding in found:
        if phase not in {None, finding.phase}:
            table.add_section()
        table.add_row("" if phase == finding.phase else finding.phase, *_cells(finding))
        phase = finding.phase
    return table


def _cells(finding: Finding) -> list[str]:
    ratio = finding.ratio
    spread = ["", "", ""]
    if ratio is not None:
        ends = f"{ratio.minimum:.3f}..{ratio.maximum:.3f}"
        spread = [f"{ratio.median:.3f}", ends, f"{ratio.low:.3f}..{ratio.high:.3f}"]
    failed = f"[red]{finding.failed}/{finding.requests}[/]" if finding.failed else f"0/{finding.requests}"
    return [finding.arm, _value(finding), *spread, _bound(finding), failed]


def _value(finding: Finding) -> str:
    if finding.value is None:
        return "no whole round"
    return f"{finding.value * 1000:.1f} ms" if finding.unit == "s" else f"{finding.value:.0f} tokens/s"


def _bound(finding: Finding) -> str:
    if finding.bound is None:
        return ""
    sign = "<=" if finding.unit == "s" else ">="
    verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: "?"}[finding.met]
    return f"{sign} {finding.bound:.2f} {verdict}"


def document(
    config: dict[str, Any], measured: Measured, found: Sequence[Finding], *, rows: bool
) -> dict[str, Any]:
    """The whole run as JSON: how it was made, what was found and, if asked for, every request."""
    result = {
        "benchmark": "throughput",
        **config,
        "load_averages": measured.loads,
        "findings": [asdict(finding) for finding in found],
    }
    if rows:
        result["passes"] = [_pass(one) for one in measured.passes]
    return result


def _pass(one: Pass) -> dict[str, Any]:
    return asdict(one) | {"failures": one.failures}
