"""Writes the result of the fault campaign as the table in docs/security.md.

python -m tests.campaigns.faults.table
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
FOUND, PAGE = RESULTS / "faults.json", DOCS / "security.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->"


def table(found: dict[str, Any]) -> str:
    """A row for each fault, and a row with the totals."""
    faults = found["faults"]
    lines = ["| fault | variants | what came back |", "|---|---|---|"]
    lines += [f"| {fault['title']} | {fault['variants']} | {_came_back(fault)} |" for fault in faults]
    variants = sum(fault["variants"] for fault in faults)
    wrong = sum(len(fault["wrong"]) for fault in faults)
    lines.append(f"| **{len(faults)} faults** | **{variants}** | **{wrong} findings**, server checked "
                 f"{found['looked_round']} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def _came_back(fault: dict[str, Any]) -> str:
    most_first = sorted(fault["replies"].items(), key=lambda pair: (-pair[1], pair[0]))
    replies = ", ".join(f"{count} × {reply}" for reply, count in most_first)
    return replies + "".join(f"; **{wrong}**" for wrong in fault["wrong"])


def put_in(page: str, made: str) -> str:
    """`page` with `made` between the two marks."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + made + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(put_in(PAGE.read_text(), table(json.loads(FOUND.read_text()))))
