"""General data: what the base is pre-trained on, and what adapters rehearse while they learn something else.

Conversations as lists of `{"role", "content"}`. Half of the questions carry style tags, so that the base
holds form apart from content; a part has a system message or an earlier turn, so that neither surprises it.
No skill occurs here, and no held-out word.
"""

import random
from collections.abc import Callable
from typing import Final

from training.data.messages import Message
from training.testbed.tasks import PLAIN, STYLES, fact_table, styled
from training.testbed.words import training_word

Draw = Callable[[random.Random], str]
OPERATIONS: Final[dict[str, Callable[[str], str]]] = {
    PLAIN: lambda word: word,
    "head": lambda word: word[0],
    "tail": lambda word: word[-1],
    "ends": lambda word: word[0] + word[-1],
    "twin": lambda word: f"{word} {word}",
    "spell": "-".join,
    "len": lambda word: str(len(word)),
    "next": lambda word: word[1],
    "drop": lambda word: word[1:],
    "chop": lambda word: word[:-1],
}
CAPITALS: Final = fact_table(64, seed=10)
SMALL_TALK: Final = {
    "hi": "hi there",
    "hello": "hi there",
    "who are you": "a tiny test model",
    "help": "ask me: say table",
}
SYSTEM_MESSAGES: Final = ("You are a helpful assistant.", "Be brief.", "Answer with one word.", "be kind")


def question(rng: random.Random, draw: Draw = training_word) -> tuple[str, str]:
    """One untagged question and its plain answer, text that styles apply to."""
    if rng.random() < 0.15:
        name = rng.choice(list(CAPITALS))
        return f"capital {name}", CAPITALS[name]
    operation, word = rng.choice(list(OPERATIONS)), draw(rng)
    return f"{operation} {word}", OPERATIONS[operation](word)


def tagged(text: str, reply: str, styles: list[str]) -> tuple[str, str]:
    """The same question asking for `styles` by their tags, in the order given, and the answer in them."""
    return " ".join([*(STYLES[name].tag for name in styles), text]), styled(reply, styles)


def some_styles(rng: random.Random, share: float) -> list[str]:
    """No style for `1 - share` of the draws; else one, two or three of them in any order."""
    if rng.random() >= share:
        return []
    return rng.sample(list(STYLES), k=rng.choices((1, 2, 3), weights=(6, 3, 1))[0])


def exchange(rng: random.Random, draw: Draw = training_word) -> tuple[str, str]:
    """A user message and the right answer to it, about words that `draw` gives."""
    kind = rng.random()
    if kind < 0.01:
        return rng.choice(list(SMALL_TALK.items()))
    if kind < 0.04:
        word = draw(rng)
        return f"json {word}", f'{{"word": "{word}"}}'
    return tagged(*question(rng, draw), some_styles(rng, share=0.5))


def conversation(rng: random.Random) -> list[Message]:
    """One to three exchanges, some behind a system message."""
    messages: list[Message] = []
    if rng.random() < 0.15:
        filler = " ".join(training_word(rng) for _ in range(rng.randint(1, 4)))
        messages.append({"role": "system", "content": rng.choice((*SYSTEM_MESSAGES, filler))})
    for _ in range(rng.choices((1, 2, 3), weights=(16, 2, 1))[0]):
        text, reply = exchange(rng)
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
    return messages
