"""Writes docs/composition-quality.md from quality.json."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from lora_compose.training.testbed.mixtures import Mixture

Record = Mapping[str, Any]
Cells = Mapping[str, Mapping[str, Any]]
ORDER: Final = ("stack", "linear", "linear, mean", "svd", "cat→svd", "ties", "dare_ties")
SHARES: Final = ("before", "after", "searched_before", "searched_after")
MARK: Final = "<!-- measured: python -m lora_compose.training.testbed.quality writes everything below -->"
"""The text above this line is written by hand and stays."""


def write_page(record: Record, page: Path) -> None:
    """Replace the text below MARK. Without a file, make the page."""
    above = page.read_text().partition(MARK)[0] if page.exists() else "# Quality of compositions\n\n"
    page.write_text(f"{above}{MARK}\n\n{page_text(record)}")


def page_text(record: Record) -> str:
    """Tables by kind and way of combining, then a table of every mixture."""
    kept: Mapping[str, Cells] = record["kept"]
    mixtures = {label: Mixture(tuple(label.split("+"))) for label in kept}
    ways = [way for way in ORDER if all(way in cells for cells in kept.values())]
    kinds: dict[str, list[str]] = defaultdict(list)
    for label, mixture in sorted(mixtures.items(), key=lambda row: (len(row[1].members), row[1].kind)):
        kinds[mixture.kind].append(label)
    parts = [
        f"{record['asked']['n']} held-out prompts for each skill, greedy decoding, one seed. TIES and DARE "
        f"have density {record['asked']['density']}.\n",
        "## Exactly right answers, mean by kind\n",
        _summary(kinds, kept, ways, lambda cell: float(cell["joint"])),
        "## How much of each member remains, mean over members\n",
        _summary(kinds, kept, ways, lambda cell: mean(cell["members"].values())),
        "## Compared with one adapter trained on the data of all members\n",
        _mixed(kept),
        "## Weights tuned on a small validation set\n",
        _tuned(record.get("tuned", {})),
        "## All combinations: exactly right answers (content / form)\n",
        *(_all(kind, labels, kept, ways) for kind, labels in kinds.items()),
    ]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _summary(
    kinds: Mapping[str, Sequence[str]],
    kept: Mapping[str, Cells],
    ways: Sequence[str],
    value: Callable[[Mapping[str, Any]], float],
) -> str:
    header = ["", *(f"{kind} ({len(labels)})" for kind, labels in kinds.items())]
    rows = [
        [way, *(f"{mean(value(kept[label][way]) for label in labels):.2f}" for labels in kinds.values())]
        for way in ways
    ]
    return _table(header, rows)


def _mixed(kept: Mapping[str, Cells]) -> str:
    rows = []
    for label, cells in kept.items():
        if "mixed" not in cells:
            continue
        best = max((way for way in cells if way != "mixed"), key=lambda way: float(cells[way]["joint"]))
        shares = [cells["stack"]["joint"], cells["mixed"]["joint"]]
        members = ", ".join(f"{name} {share:.2f}" for name, share in cells["mixed"]["members"].items())
        rows.append([label, *(f"{s:.2f}" for s in shares), f"{best} {cells[best]['joint']:.2f}", members])
    header = [
        "",
        "stack",
        "trained on the data of all members",
        "best way of combining",
        "members in the trained adapter",
    ]
    return _table(header, rows)


def _tuned(tuned: Mapping[str, Any]) -> str:
    """A table of the pairs by kind, with the mean of each kind first."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for label in tuned:
        kinds[Mixture(tuple(label.split("+"))).kind].append(label)
    rows = []
    for kind in sorted(kinds, key=lambda kind: kind != "skill+style"):
        found = [tuned[label] for label in kinds[kind]]
        means = (mean(pair[key] for pair in found) for key in SHARES)
        rows.append([f"**{kind}, mean**", *(f"**{share:.2f}**" for share in means), "", ""])
        for label, pair in zip(kinds[kind], found, strict=True):
            shares = (f"{pair[key]:.2f}" for key in SHARES)
            rows.append([label, *shares, str(pair["trials"]), pair["composition"]])
    header = [
        "",
        "weights 1",
        "tuned weights",
        "weights 1, rows of the search",
        "tuned weights, rows of the search",
        "compositions tried",
        "result",
    ]
    return _table(header, rows)


def _all(kind: str, labels: Sequence[str], kept: Mapping[str, Cells], ways: Sequence[str]) -> str:
    rows = [[label, *(_cell(kept[label][way]) for way in ways)] for label in labels]
    return f"### {kind}\n\n" + _table(["", *ways], rows)


def _cell(cell: Mapping[str, Any]) -> str:
    return f"**{cell['joint']:.2f}** ({cell['content']:.2f} / {cell['style']:.2f})"
