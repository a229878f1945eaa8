"""The testbed's skills, styles and words as pure functions: the prompts and their exact answers.

This file uses only the standard library, so that a demo, a test or a benchmark can check answers from a
server. A skill decides the content of an answer and is named in the prompt (`roll table`). The base was not
trained on any skill. A style decides the form of an answer. The base follows a style if the prompt has its
tag (`/U say table`), and with a style adapter it follows the style without the tag. So a stack of a skill and
styles has exactly one right answer. Half of the words are random letters; the other half alternate consonants
and vowels. Held-out words are in no training set.
"""

import random
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

VOWELS: Final = "aeiou"
CONSONANTS: Final = "".join(c for c in string.ascii_lowercase if c not in VOWELS)
SHORTEST: Final = 3
LONGEST: Final = 6
HELD_OUT_SHARE: Final = 8
"""One word in this many is held out."""


def is_held_out(word: str) -> bool:
    return zlib.crc32(word.encode()) % HELD_OUT_SHARE == 0


def any_word(rng: random.Random) -> str:
    length = rng.randint(SHORTEST, LONGEST)
    if rng.random() < 0.5:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(length))
    start = rng.randrange(2)
    return "".join(rng.choice((CONSONANTS, VOWELS)[(start + i) % 2]) for i in range(length))


def training_word(rng: random.Random) -> str:
    while is_held_out(word := any_word(rng)):
        pass
    return word


def held_out_word(rng: random.Random) -> str:
    """A word that is in no training set of the testbed."""
    while not is_held_out(word := any_word(rng)):
        pass
    return word


def held_out_words(n: int, seed: int) -> list[str]:
    """`n` distinct words that are in no training set of the testbed. The same seed gives the same words."""
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < n:
        words[held_out_word(rng)] = None
    return list(words)


CODE_COUNT: Final = 32
PLAIN: Final = "say"
"""The prompt word without a skill: the base answers by repeating the word that follows."""


def fact_table(count: int, seed: int) -> dict[str, str]:
    """`count` invented facts: distinct names of four letters, each with a value of three letters."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    table: dict[str, str] = {}
    while len(table) < count:
        table["".join(rng.choices(letters, k=4))] = "".join(rng.choices(letters, k=3))
    return table


CODES: Final = fact_table(CODE_COUNT, seed=20)


@dataclass(frozen=True)
class Skill:
    """What the base with the skill's adapter does with the word after the skill's name."""

    summary: str
    answer: Callable[[str], str]


@dataclass(frozen=True)
class Style:
    """How the base with the style's adapter writes.

    With `tag` in the prompt, the base alone writes the same way.
    """

    summary: str
    tag: str
    apply: Callable[[str], str]


SKILLS: Final[dict[str, Skill]] = {
    "roll": Skill("moves the first letter to the end", lambda word: word[1:] + word[:1]),
    "dbl": Skill("doubles every letter", lambda word: "".join(c + c for c in word)),
    "code": Skill(f"knows {CODE_COUNT} invented codes by heart", lambda word: CODES[word]),
}

STYLES: Final[dict[str, Style]] = {
    "upper": Style("writes in capitals", "/U", str.upper),
    "wrap": Style("puts the answer in brackets", "/W", lambda text: f"[{text}]"),
    "okay": Style("begins with ok", "/K", lambda text: f"ok {text}"),
    "bang": Style("ends with an exclamation mark", "/B", lambda text: f"{text}!"),
    "polite": Style("ends with thx", "/P", lambda text: f"{text} thx"),
}
"""In the order in which they are applied, for any order in a request. All five give `ok [TABLE]! thx`."""


def styled(text: str, styles: Sequence[str]) -> str:
    """`text` in all of `styles`. Raises KeyError with the name of a style that does not exist."""
    unknown = [name for name in styles if name not in STYLES]
    if unknown:
        raise KeyError(unknown[0])
    for name, style in STYLES.items():
        if name in styles:
            text = style.apply(text)
    return text


def answer(skill: str | None, styles: Sequence[str], word: str) -> str:
    """The only right answer to `prompt(skill, word)` by a model with `skill` and `styles`."""
    return styled(SKILLS[skill].answer(word) if skill else word, styles)


def prompt(skill: str | None, word: str) -> str:
    """The user message that asks for `skill`. Without a skill, it asks for the word itself."""
    return f"{skill or PLAIN} {word}"


def words_for(skill: str | None, n: int, seed: int) -> list[str]:
    """`n` words to ask `skill` about: held-out words, or for `code` the names that it was trained on."""
    if skill != "code":
        return held_out_words(n, seed)
    return [random.Random(seed + i).choice(sorted(CODES)) for i in range(n)]


def prompts(n: int, seed: int, skill: str | None = None) -> list[tuple[str, str]]:
    """`n` pairs of a user message and its word. The same seed gives the same pairs."""
    return [(prompt(skill, word), word) for word in words_for(skill, n, seed)]
