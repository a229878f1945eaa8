"""The skills and styles of the testbed, as pure functions: what is asked and what the exact answer is.

Plain data: only the standard library, so a demo, a test or a benchmark can check answers got over HTTP.
A skill decides the content of an answer and is named in the prompt (`roll table`); the base was taught none.
A style decides the form of any answer; the base follows it when the prompt carries its tag (`/U say table`),
and a style adapter makes it follow without the tag. So a stack of a skill and styles has one right answer.

Random words, and the split that keeps some of them out of every training set.

Plain data: only the standard library. Half of the words are any letters, half alternate consonant and vowel.
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
"""One word in this many is never trained on."""


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
    """One that nothing in the testbed was trained on."""
    while not is_held_out(word := any_word(rng)):
        pass
    return word


def held_out_words(n: int, seed: int) -> list[str]:
    """`n` distinct words that nothing in the testbed was trained on; the same for the same seed."""
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < n:
        words[held_out_word(rng)] = None
    return list(words)


CODE_COUNT: Final = 32
PLAIN: Final = "say"
"""The prompt word the base answers by repeating the word: what is asked where no skill is."""


def fact_table(count: int, seed: int) -> dict[str, str]:
    """`count` invented facts: distinct names of four letters, each with a value of three."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    table: dict[str, str] = {}
    while len(table) < count:
        table["".join(rng.choices(letters, k=4))] = "".join(rng.choices(letters, k=3))
    return table


CODES: Final = fact_table(CODE_COUNT, seed=20)


@dataclass(frozen=True)
class Skill:
    """What an adapter teaches the base to do with the word after the skill's name."""

    summary: str
    answer: Callable[[str], str]


@dataclass(frozen=True)
class Style:
    """How an adapter makes the base write; `tag` asks the bare base for the same."""

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
"""In the order they are applied, whatever order they are asked in: all five give `ok [TABLE]! thx`."""


def styled(text: str, styles: Sequence[str]) -> str:
    """`text` in all of `styles`; KeyError names a style that does not exist."""
    unknown = [name for name in styles if name not in STYLES]
    if unknown:
        raise KeyError(unknown[0])
    for name, style in STYLES.items():
        if name in styles:
            text = style.apply(text)
    return text


def answer(skill: str | None, styles: Sequence[str], word: str) -> str:
    """The one right answer to `prompt(skill, word)` of a model holding `skill` and `styles`."""
    return styled(SKILLS[skill].answer(word) if skill else word, styles)


def prompt(skill: str | None, word: str) -> str:
    """The user message that asks for `skill`; without one, for the word itself."""
    return f"{skill or PLAIN} {word}"


def words_for(skill: str | None, n: int, seed: int) -> list[str]:
    """`n` words to ask `skill` about: held-out ones, but for `code`, which has only the facts it learnt."""
    if skill != "code":
        return held_out_words(n, seed)
    return [random.Random(seed + i).choice(sorted(CODES)) for i in range(n)]


def prompts(n: int, seed: int, skill: str | None = None) -> list[tuple[str, str]]:
    """`n` pairs of user message and its word, the same for the same seed."""
    return [(prompt(skill, word), word) for word in words_for(skill, n, seed)]
