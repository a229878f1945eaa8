"""What each adapter is taught: rows for TRL, drawn from a seed.

A style adapter sees general questions without a tag, answered in its style; it never sees a skill.
A skill adapter sees its skill and rehearses general data, so that what the base knows stays; some of its
questions carry style tags, as the base's do, so that it learns content and leaves form alone.
Measured for `roll` (n=100, stacked with upper / okay / wrap): 0.92 / 0.82 / 0.58 so; without tagged
questions 0.36 / 0.15 / 0.33; without general data as well 0.39 / 0.22 / 0.85. No pair was tuned for.
"""

import random
from typing import Final, TypedDict

from training.data.messages import Message
from training.testbed.corpus import exchange, question, some_styles, tagged
from training.testbed.tasks import CODES, SKILLS, STYLES, prompt
from training.testbed.words import training_word

GENERAL_SHARE: Final = 0.3
"""How many of a skill's rows are general data."""
TAGGED_SHARE: Final = 0.3
"""How many of a skill's other rows carry style tags."""


class Row(TypedDict):
    """TRL's conversational prompt-completion row: the loss is on the completion alone."""

    prompt: list[Message]
    completion: list[Message]


def row(text: str, reply: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": reply}],
    }


def skill_row(skill: str, rng: random.Random) -> Row:
    if rng.random() < GENERAL_SHARE:
        return row(*exchange(rng))
    word = rng.choice(list(CODES)) if skill == "code" else training_word(rng)
    reply = SKILLS[skill].answer(word)
    return row(*tagged(prompt(skill, word), reply, some_styles(rng, TAGGED_SHARE)))


def style_row(style: str, rng: random.Random) -> Row:
    text, reply = question(rng)
    others = [name for name in some_styles(rng, TAGGED_SHARE) if name != style]
    asked, _ = tagged(text, reply, others)
    _, wanted = tagged(text, reply, [*others, style])
    return row(asked, wanted)


def lessons(name: str, count: int, seed: int) -> list[Row]:
    """`count` rows that teach the skill or style `name`; the same for the same seed."""
    rng = random.Random(f"{name}-{seed}")
    if name in SKILLS:
        return [skill_row(name, rng) for _ in range(count)]
    if name in STYLES:
        return [style_row(name, rng) for _ in range(count)]
    raise KeyError(name)
