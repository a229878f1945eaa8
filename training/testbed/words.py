"""Random words, and the split that keeps some of them out of every training set.

Plain data: only the standard library. Half of the words are any letters, half alternate consonant and vowel.
"""

import random
import string
import zlib
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
