"""The testbed's training data: general conversations for the base, and rows for each adapter, drawn by a
seed.

General data pre-train the base, and skill adapters also train on them, so that the base's abilities stay.
They are conversations, lists of `{"role", "content"}`. Half of the questions have style tags, so that the
base separates form from content. Some have a system message or earlier turns, so that the base can handle
these. General data have no skill and no held-out word.

A style adapter is trained on general questions without its tag, answered in its style. It never sees a skill.
A skill adapter is trained on its skill and on general data. Some of its questions have style tags, so that it
learns content and does not change form. Measured for `roll` (n=100, stacked with upper / okay / wrap): 0.92 /
0.82 / 0.58; without tagged questions 0.36 / 0.15 / 0.33; without general data as well 0.39 / 0.22 / 0.85. The
data were not tuned for any pair.
"""

import random
from collections.abc import Callable
from typing import Final, TypedDict

from lora_compose.training.data.messages import Message
from lora_compose.training.testbed.language import (
    CODES,
    PLAIN,
    SKILLS,
    STYLES,
    fact_table,
    prompt,
    styled,
    training_word,
)

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
    """A question without tags and its plain answer, to which styles can be applied."""
    if rng.random() < 0.15:
        name = rng.choice(list(CAPITALS))
        return f"capital {name}", CAPITALS[name]
    operation, word = rng.choice(list(OPERATIONS)), draw(rng)
    return f"{operation} {word}", OPERATIONS[operation](word)


def tagged(text: str, reply: str, styles: list[str]) -> tuple[str, str]:
    """The question with the tags of `styles`, in their order, and the answer in these styles."""
    return " ".join([*(STYLES[name].tag for name in styles), text]), styled(reply, styles)


def some_styles(rng: random.Random, share: float) -> list[str]:
    """One to three styles in any order for `share` of the draws, otherwise no style."""
    if rng.random() >= share:
        return []
    return rng.sample(list(STYLES), k=rng.choices((1, 2, 3), weights=(6, 3, 1))[0])


def exchange(rng: random.Random, draw: Draw = training_word) -> tuple[str, str]:
    """A user message about words from `draw`, and the right answer."""
    kind = rng.random()
    if kind < 0.01:
        return rng.choice(list(SMALL_TALK.items()))
    if kind < 0.04:
        word = draw(rng)
        return f"json {word}", f'{{"word": "{word}"}}'
    return tagged(*question(rng, draw), some_styles(rng, share=0.5))


def conversation(rng: random.Random) -> list[Message]:
    """One to three exchanges, sometimes after a system message."""
    messages: list[Message] = []
    if rng.random() < 0.15:
        filler = " ".join(training_word(rng) for _ in range(rng.randint(1, 4)))
        messages.append({"role": "system", "content": rng.choice((*SYSTEM_MESSAGES, filler))})
    for _ in range(rng.choices((1, 2, 3), weights=(16, 2, 1))[0]):
        text, reply = exchange(rng)
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
    return messages


GENERAL_SHARE: Final = 0.3
"""Share of general data in a skill's rows."""
TAGGED_SHARE: Final = 0.3
"""Share of rows with style tags in a skill's other rows."""


class CorpusRow(TypedDict):
    """A row in TRL's conversational prompt-completion form: only the completion has a loss."""

    prompt: list[Message]
    completion: list[Message]


def row(text: str, reply: str) -> CorpusRow:
    return {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": reply}],
    }


def skill_row(skill: str, rng: random.Random) -> CorpusRow:
    if rng.random() < GENERAL_SHARE:
        return row(*exchange(rng))
    word = rng.choice(list(CODES)) if skill == "code" else training_word(rng)
    reply = SKILLS[skill].answer(word)
    return row(*tagged(prompt(skill, word), reply, some_styles(rng, TAGGED_SHARE)))


def style_row(style: str, rng: random.Random) -> CorpusRow:
    text, reply = question(rng)
    others = [name for name in some_styles(rng, TAGGED_SHARE) if name != style]
    user_message, _ = tagged(text, reply, others)
    _, styled_reply = tagged(text, reply, [*others, style])
    return row(user_message, styled_reply)


def training_rows(name: str, count: int, seed: int) -> list[CorpusRow]:
    """`count` training rows for the skill or style `name`. The same seed gives the same rows."""
    rng = random.Random(f"{name}-{seed}")
    if name in SKILLS:
        return [skill_row(name, rng) for _ in range(count)]
    if name in STYLES:
        return [style_row(name, rng) for _ in range(count)]
    raise KeyError(name)
