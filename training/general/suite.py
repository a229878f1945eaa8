"""A suite of simple questions, made by a seeded generator: what a model should still do after training.

Each row names its judge, so the file needs no option. The groups are the rows of GROUPS. The words and names
are common, and every question can be answered from its text.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

Row = dict[str, Any]
Generator = Callable[[random.Random], Row]

WORDS: Final = tuple(
    "apple river table candle garden window basket pencil mirror bridge pocket winter butter island ladder "  # noqa: SIM905
    "silver monkey carpet helmet orange button hammer jacket kettle lemon market needle oyster pepper rabbit "
    "saddle tunnel violin walnut yellow zebra anchor bottle castle dragon".split()
)
NAMES: Final = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Irene",
    "Jack",
    "Karen",
    "Liam",
)
THINGS: Final = ("apples", "books", "coins", "eggs", "flowers", "keys", "pens", "shells", "stamps", "tickets")
COMPARED: Final = (("taller", "shorter"), ("older", "younger"), ("faster", "slower"), ("richer", "poorer"))


def arithmetic(draw: random.Random) -> Row:
    """A sum, a difference, a product or a short story."""
    a, b, kind = draw.randint(2, 60), draw.randint(2, 60), draw.randrange(4)
    if kind == 0:
        return _row(f"What is {a} + {b}?", str(a + b), "numeric")
    if kind == 1:
        return _row(f"What is {a + b} - {b}?", str(a), "numeric")
    if kind == 2:
        a, b = draw.randint(2, 12), draw.randint(2, 12)
        return _row(f"What is {a} times {b}?", str(a * b), "numeric")
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    story = f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?"
    return _row(story, str(a + b), "numeric")


def ordering(draw: random.Random) -> Row:
    """Words by the alphabet, or numbers by size."""
    if draw.random() < 0.5:
        words = draw.sample(WORDS, draw.randint(3, 4))
        prompt = f"Sort these words alphabetically: {', '.join(words)}. Write only the sorted list."
        return _row(prompt, ", ".join(sorted(words)), "contains:case=ignore")
    numbers = draw.sample(range(1, 100), draw.randint(3, 5))
    prompt = (
        f"Sort these numbers from smallest to largest: {', '.join(map(str, numbers))}. Write only the list."
    )
    return _row(prompt, ", ".join(map(str, sorted(numbers))), "contains")


def copying(draw: random.Random) -> Row:
    """A sequence of words, or a code, to be repeated."""
    if draw.random() < 0.5:
        words = " ".join(draw.sample(WORDS, draw.randint(3, 6)))
        return _row(f"Repeat the following words exactly: {words}", words, "contains")
    code = "".join(draw.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(draw.randint(5, 8)))
    return _row(f"Copy this code and write nothing else: {code}", code, "contains")


def strings(draw: random.Random) -> Row:
    """Capitals, letters and places in a list."""
    word, kind = draw.choice(WORDS), draw.randrange(4)
    if kind == 0:
        return _row(f'Write the word "{word}" in capital letters.', word.upper(), "contains")
    if kind == 1:
        return _row(f'How many letters does the word "{word}" have?', str(len(word)), "numeric")
    if kind == 2:
        prompt = f'What is the first letter of the word "{word}"? Write only the letter.'
        return _row(prompt, word[0], "exact:case=ignore")
    words = draw.sample(WORDS, 4)
    return _row(f"Write only the last word of this list: {', '.join(words)}", words[-1], "exact:case=ignore")


def formats(draw: random.Random) -> Row:
    """An answer in a prescribed form."""
    name, age, kind = draw.choice(NAMES), draw.randint(18, 80), draw.randrange(3)
    if kind == 0:
        prompt = (
            f'Write a JSON object with the keys "name" and "age" for this person: {name} is {age} years old.'
        )
        return _row(prompt, json.dumps({"name": name, "age": age}), "json-inside")
    day, month = draw.randint(10, 28), draw.randint(10, 12)
    if kind == 1:
        prompt = f"Write the date as YYYY-MM-DD: day {day}, month {month}, year {2000 + age % 30}."
        return _row(prompt, f"{2000 + age % 30}-{month}-{day}", "contains")
    count = draw.randint(2, 4)
    form = "Write one on each line, begin each line with a hyphen, and write nothing else."
    prompt = f"Name {count} animals. {form}"
    lines = "\n".join(f"- {animal}" for animal in ("dog", "cat", "horse", "cow")[:count])
    pattern = rf"^\s*(?:- ?[^\n]+\n+){{{count - 1}}}- ?[^\n]+\s*$"
    return _row(prompt, lines, "regex", pattern=pattern)


def logic(draw: random.Random) -> Row:
    """A question in plain English that is answered by yes or no."""
    a, b, c = draw.sample(NAMES, 3)
    more, less = draw.choice(COMPARED)
    first, second, is_yes = draw.choice(((a, c, True), (c, a, False)))
    facts = f"{a} is {more} than {b}. {b} is {more} than {c}."
    asked = f"Is {first} {more} than {second}?"
    if draw.random() < 0.5:
        facts, asked = f"{b} is {less} than {a}. {b} is {more} than {c}.", f"Is {second} {less} than {first}?"
    prompt = f"{facts} {asked} Answer yes or no."
    return _row(prompt, "Yes" if is_yes else "No", "choice", options=["Yes", "No"])


GROUPS: Final[Mapping[str, Generator]] = {
    "arithmetic": arithmetic,
    "ordering": ordering,
    "copying": copying,
    "strings": strings,
    "format": formats,
    "logic": logic,
}


def suite(count: int, seed: int) -> list[Row]:
    """`count` rows, the groups in turn. No question occurs twice. The same seed gives the same rows."""
    draw, asked = random.Random(seed), set[str]()
    rows: list[Row] = []
    groups = list(GROUPS)
    while len(rows) < count:
        group = groups[len(rows) % len(groups)]
        row = GROUPS[group](draw)
        if row["prompt"] not in asked:
            asked.add(row["prompt"])
            rows.append({**row, "group": group})
    return rows


def _row(prompt: str, answer: str, judge: str, **fields: Any) -> Row:
    return {"prompt": prompt, "completion": answer, "judge": judge, **fields}
