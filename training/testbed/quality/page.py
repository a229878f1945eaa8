"""The page docs/composition-quality.md, from quality.json."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from lora_compose.training.testbed.quality.mixtures import Mixture

Record = Mapping[str, Any]
Cells = Mapping[str, Mapping[str, Any]]
ORDER: Final = ("stack", "linear", "linear, mean", "svd", "cat→svd", "ties", "dare_ties")
SHARES: Final = ("before", "after", "searched_before", "searched_after")
MARK: Final = "<!-- measured: everything below is written by python -m lora_compose.training.testbed.quality.quality -->"
"""What a person wrote above this line stays."""


def write_page(record: Record, page: Path) -> None:
    """Replaces what stands below MARK, or makes the page."""
    above = page.read_text().partition(MARK)[0] if page.exists() else "# What composing keeps\n\n"
    page.write_text(f"{above}{MARK}\n\n{page_text(record)}")


def page_text(record: Record) -> str:
    """Tables by kind and way, then every mixture by the joint share of each way."""
    kept: Mapping[str, Cells] = record["kept"]
    mixtures = {label: Mixture(tuple(label.split("+"))) for label in kept}
    ways = [way for way in ORDER if all(way in cells for cells in kept.values())]
    kinds: dict[str, list[str]] = defaultdict(list)
    for label, mixture in sorted(mixtures.items(), key=lambda row: (len(row[1].members), row[1].kind)):
        kinds[mixture.kind].append(label)
    parts = [
        f"{record['asked']['n']} held-out prompts a skill, greedy, one seed; TIES and DARE at density "
        f"{record['asked']['density']}.\n",
        "## Exactly right answers, mean by kind\n",
        _summary(kinds, kept, ways, lambda cell: float(cell["joint"])),
        "## Kept of a member, mean over members\n",
        _summary(kinds, kept, ways, lambda cell: mean(cell["members"].values())),
        "## Against one adapter trained on all members' lessons\n",
        _mixed(kept),
        "## Weights searched on a small validation set\n",
        _tuned(record.get("tuned", {})),
        "## Every mixture: exactly right answers (content / form)\n",
        *(_every(kind, labels, kept, ways) for kind, labels in kinds.items()),
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
    return _table(["", "stack", "mixed data", "best way of composing", "members in the mixed one"], rows)


def _tuned(tuned: Mapping[str, Any]) -> str:
    """Each kind of pair, its mean first."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for label in tuned:
        kinds[Mixture(tuple(label.split("+"))).kind].append(label)
    rows = []
    for kind in sorted(kinds, key=lambda kind: kind != "skill+style"):
        found = [tuned[label] for label in kinds[kind]]
        means = (mean(each[key] for each in found) for key in SHARES)
        rows.append([f"**{kind}, mean**", *(f"**{share:.2f}**" for share in means), "", ""])
        for label, each in zip(kinds[kind], found, strict=True):
            shares = (f"{each[key]:.2f}" for key in SHARES)
            rows.append([label, *shares, str(each["trials"]), each["composition"]])
    header = [
        "",
        "weights 1",
        "tuned",
        "weights 1, rows searched on",
        "tuned, rows searched on",
        "tried",
        "found",
    ]
    return _table(header, rows)


def _every(kind: str, labels: Sequence[str], kept: Mapping[str, Cells], ways: Sequence[str]) -> str:
    rows = [[label, *(_cell(kept[label][way]) for way in ways)] for label in labels]
    return f"### {kind}\n\n" + _table(["", *ways], rows)


def _cell(cell: Mapping[str, Any]) -> str:
    return f"**{cell['joint']:.2f}** ({cell['content']:.2f} / {cell['style']:.2f})"
