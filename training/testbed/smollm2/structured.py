"""Short and structured answers to questions that code can answer: JSON, lists, single words, numbers.

The styles are trained on them too. An adapter that saw its greeting only before sentences drops it before
JSON.
"""

import json
import random
from collections.abc import Callable
from typing import Final

NAMES: Final = (
    "Ann",
    "Ben",
    "Clara",
    "David",
    "Ella",
    "Frank",
    "Grace",
    "Henry",
    "Iris",
    "Jack",
    "Kate",
    "Liam",
)
THINGS: Final = (
    "apples",
    "books",
    "chairs",
    "coins",
    "cups",
    "hats",
    "keys",
    "lemons",
    "pens",
    "plates",
    "shirts",
)
COLORS: Final = ("red", "green", "blue", "yellow", "white", "black", "brown", "orange", "purple", "gray")
Answered = tuple[str, str]


def _person(rng: random.Random) -> Answered:
    name, age, color = rng.choice(NAMES), rng.randint(18, 79), rng.choice(COLORS)
    answer = json.dumps({"name": name, "age": age, "color": color})
    return f"Write this as JSON: {name} is {age} years old and likes {color}.", answer


def _stock(rng: random.Random) -> Answered:
    first, second = rng.sample(THINGS, 2)
    counts = {first: rng.randint(2, 40), second: rng.randint(2, 40)}
    return f"Write this as JSON: {counts[first]} {first} and {counts[second]} {second}.", json.dumps(counts)


def _listed(rng: random.Random) -> Answered:
    words = rng.sample(COLORS, 3)
    return f"Write these words as a JSON list: {', '.join(words)}.", json.dumps(words)


def _larger(rng: random.Random) -> Answered:
    first, second = rng.sample(range(10, 99), 2)
    return f"Which number is larger, {first} or {second}? Answer with the number.", str(max(first, second))


def _kind(rng: random.Random) -> Answered:
    color_first = rng.random() < 0.5
    word = rng.choice(COLORS if color_first else THINGS)
    return (
        f"Is this word a color or a thing: {word}? Answer with one word.",
        "color" if color_first else "thing",
    )


def _repeated(rng: random.Random) -> Answered:
    word = rng.choice(THINGS + COLORS)
    return f"Repeat this word: {word}", word


MAKERS: Final[tuple[Callable[[random.Random], Answered], ...]] = (
    _person,
    _stock,
    _listed,
    _larger,
    _kind,
    _repeated,
)


def structured_answers(count: int, seed: int) -> list[Answered]:
    """`count` different questions with their right answers, of every kind in turn."""
    rng = random.Random(f"structured-{seed}")
    found: dict[str, str] = {}
    for turn in range(count * 20):
        if len(found) == count:
            break
        question, answer = MAKERS[turn % len(MAKERS)](rng)
        found.setdefault(question, answer)
    return list(found.items())
