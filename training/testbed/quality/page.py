"""Writes the measured part of docs/composition-quality.md from the files of results."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

from lora_compose.training.testbed.mixtures import Mixture
from lora_compose.training.testbed.quality.cells import KIND_ORDER, MIXED, SEARCHED
from lora_compose.training.testbed.quality.intervals import interval
from lora_compose.training.testbed.subject import Cell, Subject

Cells = Mapping[str, Mapping[str, Any]]
"""Mixture -> way -> cell, of one seed."""
SHARES: Final = ("before", "joint", "searched_before", "searched_after")
MARK: Final = "<!-- measured: python -m lora_compose.training.testbed.quality writes everything below -->"
"""The text above this line is written by hand and stays."""


@dataclass(frozen=True)
class Results:
    """The cells of a model, with the names of its skills."""

    subject: Subject
    seeds: Mapping[str, Cells]

    @property
    def first(self) -> Cells:
        """The cells of the first seed."""
        return next(iter(self.seeds.values()), {})

    def by_kind(self) -> dict[str, list[str]]:
        """The labels of the mixtures by kind: pairs first, and skills before styles."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for label in self.first:
            kinds[Mixture(tuple(label.split("+")), self.subject.known_skills).kind].append(label)
        order = sorted(
            kinds,
            key=lambda kind: (kind.count("+"), KIND_ORDER.index(kind) if kind in KIND_ORDER else 9, kind),
        )
        return {kind: kinds[kind] for kind in order}

    def cells(self, labels: Sequence[str], way: str, column: str) -> list[list[Cell]]:
        """The cells of every seed that has `column` for all `labels`, shape (seeds, labels)."""
        return [
            [cells[label][way] for label in labels]
            for cells in self.seeds.values()
            if all(column in cells.get(label, {}).get(way, {}) for label in labels)
        ]


def write_page(records: Sequence[tuple[Subject, Mapping[str, Cells]]], page: Path) -> None:
    """Replace the text below MARK. Without a file, make the page."""
    above = page.read_text().partition(MARK)[0] if page.exists() else "# Quality of compositions\n\n"
    results = [Results(subject, seeds) for subject, seeds in records if seeds]
    page.write_text(f"{above}{MARK}\n\n{page_text(results)}")


def page_text(results: Sequence[Results]) -> str:
    """Tables by kind and way of combining for every model, then a table of every mixture."""
    return "\n".join(part for found in results for part in _model(found))


def _model(results: Results) -> list[str]:
    kinds, cells = results.by_kind(), results.first
    seeds = "one seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"
    tables = {
        "exactly right answers, mean by kind": _summary(
            results, kinds, "joint", lambda cell: float(cell["joint"])
        ),
        "how much of each member remains, mean over members": _summary(
            results, kinds, "members", lambda cell: mean(cell["members"].values())
        ),
        "one adapter trained on the data of all members": _mixed(cells),
        "weights searched on other held-out rows": _searched(results, kinds),
    }
    return [
        f"## {results.subject.name}\n",
        f"Greedy decoding, {seeds}. In brackets: the number of mixtures, and 95 % intervals.\n",
        *(f"### {results.subject.name}: {title}\n\n{table}" for title, table in tables.items() if table),
        f"### {results.subject.name}: all combinations, exactly right answers (content / form)\n",
        *(_all(kind, labels, cells, results.subject.ways) for kind, labels in kinds.items()),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. Without rows, an empty text."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _summary(
    results: Results, kinds: Mapping[str, Sequence[str]], column: str, share: Callable[[Cell], float]
) -> str:
    header = ["", *(f"{kind} ({len(labels)})" for kind, labels in kinds.items())]
    rows = []
    for way in (*results.subject.ways, SEARCHED):
        found = [results.cells(labels, way, column) for labels in kinds.values()]
        if any(found):
            rows.append([way, *(str(interval(seeds, share)) if seeds else "" for seeds in found)])
    return _table(header, rows)


def _mixed(cells: Cells) -> str:
    rows = []
    for label, ways in cells.items():
        if MIXED not in ways or "stack" not in ways:
            continue
        best = max(
            (way for way in ways if way not in (MIXED, SEARCHED)), key=lambda way: float(ways[way]["joint"])
        )
        shares = [ways["stack"]["joint"], ways[MIXED]["joint"]]
        members = ", ".join(f"{name} {share:.2f}" for name, share in ways[MIXED]["members"].items())
        rows.append([label, *(f"{s:.2f}" for s in shares), f"{best} {ways[best]['joint']:.2f}", members])
    header = [
        "",
        "stack",
        "trained on the data of all members",
        "best way of combining",
        "members in the trained adapter",
    ]
    return _table(header, rows)


def _searched(results: Results, kinds: Mapping[str, Sequence[str]]) -> str:
    """A table of the mixtures by kind, with the mean of each kind first."""
    rows = []
    for kind, labels in kinds.items():
        ways = {label: results.first[label] for label in labels}
        found = {
            label: cells[SEARCHED] | {"before": cells["stack"]["joint"]}
            for label, cells in ways.items()
            if SEARCHED in cells and "stack" in cells
        }
        if not found:
            continue
        means = (mean(pair[key] for pair in found.values()) for key in SHARES)
        rows.append([f"**{kind}, mean**", *(f"**{share:.2f}**" for share in means), "", ""])
        for label, pair in found.items():
            shares = (f"{pair[key]:.2f}" for key in SHARES)
            rows.append([label, *shares, str(pair["trials"]), pair["composition"]])
    header = [
        "",
        "weights 1",
        "searched weights",
        "weights 1, rows of the search",
        "searched weights, rows of the search",
        "compositions tried",
        "result",
    ]
    return _table(header, rows)


def _all(kind: str, labels: Sequence[str], cells: Cells, ways: Sequence[str]) -> str:
    measured = [way for way in ways if any(way in cells[label] for label in labels)]
    rows = [[label, *(_cell(cells[label].get(way)) for way in measured)] for label in labels]
    return f"#### {kind}\n\n" + _table(["", *measured], rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"**{cell['joint']:.2f}** ({cell['content']:.2f} / {cell['style']:.2f})"
