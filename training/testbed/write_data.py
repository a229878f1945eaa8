"""Write the data files of the shipped recipes and the questions of `testbed:NAME`.

    python -m lora_compose.training.testbed.write_data

The recipes train the testbed's skill `roll` and the style `upper`. The same seed gives the same bytes.
Held-out files and questions are about words that no training file has.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer

from lora_compose.training.evaluation.tasks import SHIPPED_ROWS
from lora_compose.training.testbed.corpus import TAGGED_SHARE, exchange, some_styles, tagged
from lora_compose.training.testbed.language import (
    SKILLS,
    STYLES,
    answer,
    held_out_word,
    held_out_words,
    prompt,
    styled,
    training_word,
    words_for,
)
from lora_compose.training.testbed.mixtures import Mixture, all_mixtures
from lora_compose.training.testbed.paths import DATA_DIR, QUESTIONS_DIR

SKILL: Final = "roll"
STYLE: Final = "upper"
"""The preferred style.

Its answers are as long as the plain answers, so that length does not predict the choice.
"""
GOOD_SHARE: Final = 2 / 3
"""Share of good answers in the rows for KTO."""
QUESTION_SEEDS: Final = (0, 1)
"""A file of questions holds SHIPPED_ROWS rows of each of these seeds, in this order."""
Row = Mapping[str, Any]


def skill_row(rng: random.Random) -> Row:
    """A question for the skill, sometimes with style tags, and its answer."""
    word = training_word(rng)
    return _answered(*tagged(prompt(SKILL, word), SKILLS[SKILL].answer(word), some_styles(rng, TAGGED_SHARE)))


def general_row(rng: random.Random) -> Row:
    """A question that the base can answer already, and its answer."""
    return _answered(*exchange(rng))


def undecided_row(rng: random.Random) -> Row:
    """A question for the skill, answered at random in the style or plain. DPO starts from such an adapter."""
    word = training_word(rng)
    return _answered(prompt(SKILL, word), styled(SKILLS[SKILL].answer(word), [STYLE] * rng.randint(0, 1)))


def preference(word: str) -> Row:
    """Two right answers. The one in the style is chosen."""
    answer = SKILLS[SKILL].answer(word)
    return {"prompt": prompt(SKILL, word), "chosen": styled(answer, [STYLE]), "rejected": answer}


def general_preference(rng: random.Random) -> Row:
    """A general question, with or without tags.

    The base's answer is chosen, and the one in the other case rejected.
    """
    while True:
        text, answer = exchange(rng)
        other = answer.upper() if answer != answer.upper() else answer.lower()
        if other != answer:
            return {"prompt": text, "chosen": answer, "rejected": other}


def rated(word: str, good: bool) -> Row:
    """One right answer and whether it is good: those in the style are."""
    pair = preference(word)
    return {
        "prompt": pair["prompt"],
        "completion": pair["chosen" if good else "rejected"],
        "label": good,
    }


def rated_rows(words: list[str], seed: int) -> list[Row]:
    """Twice as many good answers as bad ones, as in feedback that people leave. Each word has one answer."""
    rng = random.Random(f"rated-{seed}")
    return [rated(word, rng.random() < GOOD_SHARE) for word in words]


def rated_general(rng: random.Random) -> Row:
    """A general question. The base's answer is good, and the one in the other case bad."""
    pair = general_preference(rng)
    good = rng.random() < GOOD_SHARE
    return {
        "prompt": pair["prompt"],
        "completion": pair["chosen" if good else "rejected"],
        "label": good,
    }


def _answered(text: str, reply: str) -> Row:
    return {"prompt": text, "completion": reply}


def drawn(make: Callable[[random.Random], Row], count: int, seed: int) -> list[Row]:
    """`count` different rows."""
    rng = random.Random(f"{make.__name__}-{seed}")
    found: dict[str, Row] = {}
    while len(found) < count:
        row = make(rng)
        found[json.dumps(row)] = row
    return list(found.values())


def files(seed: int = 0) -> dict[str, list[Row]]:
    """The rows of every file, by file name."""
    held_out = held_out_words(200, seed)
    return {
        "roll.jsonl": drawn(skill_row, 3000, seed),
        "general.jsonl": drawn(general_row, 3000, seed),
        "roll-held-out.jsonl": [
            _answered(prompt(SKILL, word), SKILLS[SKILL].answer(word)) for word in held_out
        ],
        "general-held-out.jsonl": drawn(general_row, 3200, seed)[3000:],
        "roll-undecided.jsonl": drawn(undecided_row, 2000, seed),
        "upper-preferred.jsonl": [preference(word) for word in _words(1000, seed)],
        "general-preferred.jsonl": drawn(general_preference, 1000, seed),
        "upper-rated.jsonl": rated_rows(_words(1000, seed), seed),
        "general-rated.jsonl": drawn(rated_general, 1000, seed),
        "upper-rated-held-out.jsonl": rated_rows(held_out, seed + 1),
        "upper-preferred-held-out.jsonl": [preference(word) for word in held_out],
        "roll-wrap.jsonl": [
            _answered(prompt(SKILL, word), styled(SKILLS[SKILL].answer(word), ["wrap"]))
            for word in held_out[:64]
        ],
        "roll-upper-held-out.jsonl": [
            _answered(prompt(SKILL, word), styled(SKILLS[SKILL].answer(word), [STYLE])) for word in held_out
        ],
    }


def _words(count: int, seed: int) -> list[str]:
    rng = random.Random(f"preferences-{seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        found[training_word(rng)] = None
    return list(found)


def questions() -> dict[str, list[Row]]:
    """The rows of the files of questions: general questions, every adapter, and mixtures of two or three
    adapters.

    A mixture has at most one skill, because a question names only one skill.
    """
    alone = [Mixture((name,)) for name in (*SKILLS, *STYLES)]
    mixtures = [
        mixture for mixture in (*alone, *all_mixtures(2), *all_mixtures(3)) if len(mixture.skills) < 2
    ]
    makers: dict[str, Callable[[int], list[Row]]] = {"general": _general_questions}
    makers |= {"+".join(sorted(mixture.members)): partial(_questions_of, mixture) for mixture in mixtures}
    return {
        f"{name}.jsonl": [row for seed in QUESTION_SEEDS for row in make(seed)]
        for name, make in makers.items()
    }


def _general_questions(seed: int) -> list[Row]:
    rng = random.Random(f"general-{seed}")
    return [_answered(*exchange(rng, held_out_word)) for _ in range(SHIPPED_ROWS)]


def _questions_of(mixture: Mixture, seed: int) -> list[Row]:
    skill = next(iter(mixture.skills), None)
    words = words_for(skill, SHIPPED_ROWS, 1000 + seed)
    return [_answered(prompt(skill, word), answer(skill, mixture.styles, word)) for word in words]


def as_lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(directory: Path = DATA_DIR, question_directory: Path = QUESTIONS_DIR) -> None:
    """Write all files."""
    _write(directory, files())
    _write(question_directory, questions())


def _write(directory: Path, files: Mapping[str, list[Row]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (directory / name).write_text(as_lines(rows))
        typer.echo(f"Wrote {directory / name}: {len(rows)} rows")


if __name__ == "__main__":
    typer.run(write)
