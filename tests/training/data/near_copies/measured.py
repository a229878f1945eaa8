"""Print the precision and recall of the search for near copies, by language and by kind of edit.

    python -m tests.training.data.near_copies.measured

Every row has its own meaning. A copy is a row with an edit that does not change the meaning; a look-alike has
an edit that does. A false copy is a row that the search calls a copy, although it is not one.
"""

import random
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lora_compose.training.data.near_duplicates import find_copies
from tests.training.data.near_copies.blind import COPIES, LOOK_ALIKES
from tests.training.data.near_copies.texts import CODE, LANGUAGES, NAMES, Language

SEEDS = (1, 2, 3)
EACH = 80
"""Rows of each language before copies and look-alikes."""
SHARE = 0.35
"""The share of rows that get a copy, and of those that get a look-alike."""
Pair = tuple[str, str]
"""A question and an answer."""
Edit = Callable[[Pair, random.Random], Pair]


@dataclass(frozen=True)
class Made:
    """A row of the set. `edit` names the edit; an empty one is an original."""

    language: str
    text: str
    edit: str = ""
    is_copy: bool = False


@dataclass
class Counts:
    """Copies of one language or edit, and what the search says."""

    copies: int = 0
    found: int = 0
    false: int = 0
    others: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.found / self.copies if self.copies else 1.0

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else 1.0


def typing_error(pair: Pair, rng: random.Random) -> Pair:
    """Two letters of a long word are exchanged; in Korean, a space is left out."""
    asked, said = pair
    words = said.split(" ")
    at = rng.choice([i for i, word in enumerate(words) if len(word) > 2 and word.isalpha()])
    word = words[at]
    words[at] = word[:1] + word[2] + word[1] + word[3:]
    return asked, " ".join(words)


def without_accents(pair: Pair, _: random.Random) -> Pair:
    return plain(pair[0]), plain(pair[1])


def plain(text: str) -> str:
    kept = (character for character in unicodedata.normalize("NFD", text) if character not in ACCENTS)
    return unicodedata.normalize("NFC", "".join(kept))


ACCENTS = ("\u0300", "\u0301", "\u0302", "\u0303", "\u0308", "\u0327")


def other_marks(pair: Pair, _: random.Random) -> Pair:
    """Punctuation as chats have it."""
    asked, said = pair
    return asked.rstrip(" ?.!"), said.replace(", ", " - ").rstrip(".")


def copies_of(language: Language) -> dict[str, Edit]:
    """The edits that do not change the meaning."""
    return {
        "typing error": typing_error,
        "polite opening": lambda pair, _: (language.opening + pair[0], pair[1]),
        "closing": lambda pair, _: (pair[0] + language.closing, pair[1]),
        "punctuation": other_marks,
        "accents": without_accents,
        "case and spaces": lambda pair, _: (pair[0].upper(), pair[1].replace(" ", "  ", 2)),
        "synonym": lambda pair, rng: exchanged(pair, language.synonyms, rng),
    }


def look_alikes_of(language: Language) -> dict[str, Edit]:
    """The edits that change the meaning."""
    return {
        "opposite": lambda pair, rng: exchanged(pair, language.opposites, rng),
        "other number": lambda pair, rng: (pair[0], f"{pair[1]} ({rng.randint(10, 99)})"),
        "another sentence": lambda pair, rng: (pair[0], pair[1] + " " + sentence(language, rng)),
    }


def exchanged(pair: Pair, words: Sequence[tuple[str, str]], rng: random.Random) -> Pair:
    """One of the words that the pair has is exchanged; without any, the pair stays as it is."""
    text = "\n".join(pair)
    known = [(a, b) for a, b in words if re.search(rf"\b{a}", text)]
    if not known:
        return pair
    a, b = rng.choice(known)
    asked, said = re.sub(rf"\b{a}", b, text, count=1).split("\n")
    return asked, said


def sentence(language: Language, rng: random.Random) -> str:
    kinds = ("who", "does", "where", "when")
    return language.order.format(**{kind: rng.choice(getattr(language, kind)) for kind in kinds})


def prose(name: str, rng: random.Random) -> Iterator[Made]:
    """The rows of a language, with copies and look-alikes of some."""
    language = LANGUAGES[name]
    for _ in range(EACH):
        asked = " ".join([rng.choice(language.instructions), *(sentence(language, rng) for _ in range(2))])
        pair = asked, " ".join(sentence(language, rng) for _ in range(rng.randint(1, 4)))
        yield from edited(name, pair, (copies_of(language), look_alikes_of(language)), rng)


def edited(
    name: str, pair: Pair, edits: tuple[dict[str, Edit], dict[str, Edit]], rng: random.Random
) -> Iterator[Made]:
    """The row, and perhaps a copy and a look-alike of it."""
    yield Made(name, "\n".join(pair))
    for is_copy, known in zip((True, False), edits, strict=True):
        if rng.random() < SHARE:
            edit = rng.choice(sorted(known))
            text = "\n".join(known[edit](pair, rng))
            if text != "\n".join(pair):
                yield Made(name, text, edit, is_copy)


def code(rng: random.Random) -> Iterator[Made]:
    """The rows of code."""
    for asked, said, piece, other in CODE:
        for _ in range(EACH // len(CODE)):
            names = (*rng.sample(NAMES, 2), str(rng.randint(2, 60)))
            pair = filled(asked, names), filled(said, names)
            changed = filled(piece, names), filled(other, names)
            copies: dict[str, Edit] = {
                "indentation": lambda pair, _: (pair[0], pair[1].replace("\n", "\n  ")),
                "comment": lambda pair, _: (pair[0], pair[1] + "\n# done"),
                "polite opening": lambda pair, _: ("Please help: " + pair[0], pair[1]),
                "blank lines": lambda pair, _: (pair[0], pair[1].replace("\n", "\n\n")),
                "fence": lambda pair, _: (pair[0], f"```\n{pair[1]}\n```"),
            }
            look_alikes: dict[str, Edit] = {
                "other operator": replacing(*changed),
                "other number": lambda pair, rng: (f"{pair[0]} Use {rng.randint(2, 9)} lines.", pair[1]),
            }
            yield from edited("code", pair, (copies, look_alikes), rng)


def replacing(old: str, new: str) -> Edit:
    return lambda pair, _: (pair[0], pair[1].replace(old, new))


def filled(text: str, names: Sequence[str]) -> str:
    for number, name in enumerate(names):
        text = text.replace(f"{{{number}}}", name)
    return text


def made(seed: int) -> list[Made]:
    """All rows of one seed, the originals before their copies."""
    rng = random.Random(seed)
    return [*code(rng), *(row for name in LANGUAGES for row in prose(name, rng))]


def count(rows: list[Made], by: Callable[[Made], str]) -> dict[str, Counts]:
    """What the search finds among the rows, which are one data set."""
    found = find_copies([(row.text, "") for row in rows])
    dropped = {**found.exact, **found.near}
    counts: dict[str, Counts] = {}
    for number, row in enumerate(rows):
        own = counts.setdefault(by(row), Counts())
        own.copies += row.is_copy
        own.others += not row.is_copy
        own.found += row.is_copy and number in dropped
        own.false += not row.is_copy and number in dropped
        if row.is_copy != (number in dropped):
            own.wrong.append(row.text)
    return counts


def summed(parts: list[dict[str, Counts]]) -> dict[str, Counts]:
    total: dict[str, Counts] = {}
    for name, own in (item for part in parts for item in part.items()):
        known = total.setdefault(name, Counts())
        known.copies += own.copies
        known.found += own.found
        known.false += own.false
        known.others += own.others
    return total


def table(counts: dict[str, Counts]) -> str:
    lines = ["| | copies | other rows | recall | precision |", "|---|---|---|---|---|"]
    for name, own in counts.items():
        shown = f"{own.recall:.2f} | {own.precision:.2f}" if own.copies else f" | {own.false} false"
        lines.append(f"| {name or 'rows without an edit'} | {own.copies} | {own.others} | {shown} |")
    return "\n".join(lines)


def blind() -> list[Made]:
    """The pairs of `blind.py` as one data set."""
    return [
        row
        for is_copy, pairs in ((True, COPIES), (False, LOOK_ALIKES))
        for language, text, other in pairs
        for row in (Made(language, text), Made(language, other, "by hand", is_copy))
    ]


def main() -> None:
    sets = [made(seed) for seed in SEEDS]
    views: tuple[Callable[[Made], str], ...] = (
        lambda _: "all",
        lambda row: row.language,
        lambda row: row.edit,
    )
    for by in views:
        sys.stdout.write(table(summed([count(rows, by) for rows in sets])) + "\n\n")
    sys.stdout.write(f"written by hand afterwards\n{table(count(blind(), lambda row: row.language))}\n")
    sys.stdout.write(table(count(blind(), lambda _: "all")) + "\n")


if __name__ == "__main__":
    main()
