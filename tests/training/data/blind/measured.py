"""Print the precision and recall of the personal-data step for each kind and language.

    python -m tests.training.data.blind.measured        # seeds 11, 12 and 13; a table in Markdown

An item counts as found if the whole value is found with its kind. What is found elsewhere is a false item.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lora_compose.training.data.pii import find
from tests.training.data.blind.carriers import NEGATIVE, POSITIVE
from tests.training.data.blind.items import ALIKE, REAL
from tests.training.data.blind.prose import PROSE

SEEDS = (11, 12, 13)
EACH = 15
"""Items of each kind, language and seed."""
NATIONAL = "NATIONAL_ID"


@dataclass(frozen=True)
class Case:
    """A text with one item of personal data, or with none."""

    language: str
    text: str
    kind: str = ""
    value: str = ""


@dataclass
class Counts:
    """Items of one kind and language."""

    given: int = 0
    found: int = 0
    false: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.found / self.given if self.given else 1.0

    @property
    def precision(self) -> float:
        total = self.found + self.false
        return self.found / total if total else 1.0


def cases(seed: int, each: int = EACH) -> Iterator[Case]:
    """The texts of one seed."""
    rng = random.Random(seed)
    for language, kinds in POSITIVE.items():
        for kind, carriers in kinds.items():
            for _ in range(each):
                value = REAL[kind](rng, language)
                yield Case(language, rng.choice(carriers).format(value), kind, value)
    for language, carriers in NEGATIVE.items():
        for carrier in carriers:
            for _ in range(each):
                yield Case(language, _filled(rng, carrier))


def _filled(rng: random.Random, carrier: str) -> str:
    text = re.sub(r"\{(\w+)\}", lambda place: ALIKE[place[1]](rng), carrier)
    return text.replace("{{", "{").replace("}}", "}")


def count(texts: Sequence[Case]) -> dict[tuple[str, str], Counts]:
    """What `find` finds, by kind and language."""
    counts: dict[tuple[str, str], Counts] = {}
    for case in texts:
        if case.kind:
            counts.setdefault((case.kind, case.language), Counts()).given += 1
        is_found = False
        for match in find(case.text):
            kind = _known(match.kind)
            own = counts.setdefault((kind, case.language), Counts())
            if kind == case.kind and match.value.strip() == case.value:
                own.found, is_found = own.found + 1, True
            else:
                own.false += 1
                own.wrong.append(f"{match.value!r} in {case.text!r}")
        if case.kind and not is_found:
            counts[case.kind, case.language].missed.append(case.text)
    return counts


MARK = re.compile(r"\[([A-Z]+)\|([^\]]*)\]")


def count_prose() -> dict[tuple[str, str], Counts]:
    """The same for the texts of `prose.py`, which have several items or none."""
    counts: dict[tuple[str, str], Counts] = {}
    for language, marked in ((language, text) for language, texts in PROSE.items() for text in texts):
        text = MARK.sub(lambda mark: mark[2], marked)
        given = Counter((_known(mark[1]), mark[2]) for mark in MARK.finditer(marked))
        found = Counter((_known(match.kind), match.value) for match in find(text))
        for kind, value in given | found:
            own = counts.setdefault((kind, language), Counts())
            both = min(given[kind, value], found[kind, value])
            own.given += given[kind, value]
            own.found += both
            own.false += found[kind, value] - both
            own.missed += [text] * (given[kind, value] > both)
            own.wrong += [f"{value!r} in {text!r}"] * (found[kind, value] > both)
    return counts


def _known(kind: str) -> str:
    return kind if kind in REAL else NATIONAL


def table(counts: dict[tuple[str, str], Counts]) -> str:
    """Recall / precision, kinds down, languages across."""
    languages = list(POSITIVE)
    lines = [f"| | {' | '.join(languages)} | all |", "|---" * (len(languages) + 2) + "|"]
    for kind in REAL:
        own = [counts.get((kind, language)) for language in languages]
        lines.append(f"| {kind} | {' | '.join(map(_cell, own))} | {_cell(_sum(own))} |")
    columns = [_sum([counts.get((kind, language)) for kind in REAL]) for language in languages]
    lines.append(f"| all | {' | '.join(map(_cell, columns))} | {_cell(_sum(columns))} |")
    return "\n".join(lines)


def _sum(parts: Sequence[Counts | None]) -> Counts:
    known = [part for part in parts if part is not None]
    return Counts(sum(c.given for c in known), sum(c.found for c in known), sum(c.false for c in known))


def _cell(counts: Counts | None) -> str:
    if counts is None or not counts.given + counts.false:
        return ""
    if not counts.given:
        return f"{counts.false} false"
    return f"{counts.recall:.2f} / {counts.precision:.2f}"


def main() -> None:
    texts = [case for seed in SEEDS for case in cases(seed)]
    found = count(texts)
    items = sum(bool(case.kind) for case in texts)
    sys.stdout.write(f"{items} items, {len(texts)} texts; recall / precision\n{table(found)}\n")
    prose = count_prose()
    items, size = sum(c.given for c in prose.values()), sum(map(len, PROSE.values()))
    sys.stdout.write(f"prose: {items} items, {size} texts; recall / precision\n{table(prose)}\n")


if __name__ == "__main__":
    main()
