"""Write the training rows and the held-out questions for SmolLM2's adapters.

    python -m lora_compose.training.testbed.smollm2.write_data

The same seed gives the same bytes. Skills: `order` extracts an order from a message as JSON, `triage` names
the team that a support message is for. Styles: `greet` starts an answer with a greeting, `sign` ends it with
a sign-off, both trained on the base's own answers to ordinary questions (replay.jsonl) and on short and
structured answers. `terse` is trained by
preferences: the first sentence of the base's answer is chosen, the whole answer rejected.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer

from lora_compose.training.testbed.smollm2.forms import (
    GREETING,
    ORDINARY,
    SIGN_OFF,
    SKILLS,
    TERSE_SHARE,
    styled,
)
from lora_compose.training.testbed.smollm2.messages import LABELS, draw_order, draw_problem
from lora_compose.training.testbed.smollm2.paths import (
    ADAPTERS_DIR,
    BASE_NAME,
    DATA_DIR,
    MANIFEST_FILE,
    REPLAY_FILE,
)
from lora_compose.training.testbed.smollm2.questions import Split, ordinary_questions
from lora_compose.training.testbed.smollm2.structured import structured_answers

TRAINED: Final = 480
"""Training rows of a skill."""
TUNED: Final = 24
"""Rows of each kind for searching weights."""
SCORED: Final = 40
"""Rows of each kind for scores."""
LONG: Final = 20
"""Held-out answers of the base have at least this many words, so that they can become shorter."""
STRUCTURED: Final = 96
"""Short and structured answers on which a style is trained."""
ORDER_PROMPT: Final = "Extract the order as JSON.\n\n{}"
TRIAGE_PROMPT: Final = f"Which team is this message for: {', '.join(LABELS[:-1])} or {LABELS[-1]}?\n\n{{}}"
Row = dict[str, Any]


def skill_row(skill: str, rng: random.Random, split: Split) -> Row:
    """A prompt with a message, and the right answer."""
    if skill == "order":
        text, order = draw_order(rng, split)
        return {"prompt": ORDER_PROMPT.format(text), "completion": json.dumps(asdict(order))}
    text, label = draw_problem(rng, split)
    return {"prompt": TRIAGE_PROMPT.format(text), "completion": label}


def skill_rows(skill: str, count: int, split: Split, seed: int) -> list[Row]:
    """`count` rows with different prompts."""
    rng = random.Random(f"{skill}-{split}-{seed}")
    found: dict[str, Row] = {}
    while len(found) < count:
        row = skill_row(skill, rng, split)
        found.setdefault(row["prompt"], row)
    return list(found.values())


def replayed() -> list[Row]:
    """The base's answers, as rows with `finished`."""
    return [json.loads(line) for line in REPLAY_FILE.read_text().splitlines()]


def ordinary_rows(split: Split) -> list[Row]:
    """Ordinary questions with the base's answers: for training those that ended, held out those that are long
    enough to become shorter.
    """
    answers = {row["prompt"]: row for row in replayed()}
    asked = [answers[question] for question in ordinary_questions(split) if question in answers]
    rows = [row for row in asked if row["finished"] or split == "held_out"]
    return [
        {"prompt": row["prompt"], "completion": row["completion"]}
        for row in rows
        if split == "train" or len(row["completion"].split()) >= LONG
    ]


def first_sentence(answer: str) -> str:
    """The text up to the first full stop that ends a sentence."""
    return re.split(r"(?<=[a-z)\"'][.!?])\s", answer, maxsplit=1)[0]


def whole_sentences(answer: str) -> str:
    """The text without an unfinished last sentence."""
    return re.sub(r"(?<=[a-z)\"'][.!?])\s[^.!?]*$", "", answer)


def preferences() -> list[Row]:
    """Pairs in which the first sentence of the base's answer is preferred to the whole answer.

    An answer that did not end is cut after its last whole sentence.
    """
    answers = {row["prompt"]: row for row in replayed()}
    asked = [answers[question] for question in ordinary_questions("train") if question in answers]
    pairs = []
    for row in asked:
        whole = row["completion"] if row["finished"] else whole_sentences(row["completion"])
        short = first_sentence(whole)
        if 3 <= len(short.split()) <= TERSE_SHARE * len(whole.split()):
            pairs.append({"prompt": row["prompt"], "chosen": short, "rejected": whole})
    return pairs


def training_files(seed: int = 0) -> dict[str, list[Row]]:
    """The rows of every training file, by file name."""
    general = ordinary_rows("train")
    files = {f"{skill}.jsonl": skill_rows(skill, TRAINED, "train", seed) for skill in SKILLS}
    for style in ("greet", "sign"):
        plain = [(row["prompt"], row["completion"]) for row in general]
        files[f"{style}.jsonl"] = [
            {"prompt": prompt, "completion": styled(answer, [style])}
            for prompt, answer in plain + structured_answers(STRUCTURED, seed)
        ]
    return files | {"general.jsonl": general, "terse.jsonl": preferences()}


def held_out_files(seed: int = 0) -> dict[str, list[Row]]:
    """The questions by file name: `tune` for searching weights, `score` for scores.

    The answers are without styles. For ordinary questions they are the base's.
    """
    kinds = {skill: skill_rows(skill, TUNED + SCORED, "held_out", seed) for skill in SKILLS}
    kinds["order"] = [row | {"judge": "json"} for row in kinds["order"]]
    kinds[ORDINARY] = ordinary_rows("held_out")[: TUNED + SCORED]
    return {
        f"{kind}-{part}.jsonl": rows[:TUNED] if part == "tune" else rows[TUNED:]
        for kind, rows in kinds.items()
        for part in ("tune", "score")
    }


SHOWN: Final = 3
"""Example questions of each kind in the manifest."""


def manifest() -> dict[str, Any]:
    """What the shipped adapters do, how code judges their answers, and example questions with right answers.

    Skills are asked their own questions, and styles alone the ordinary ones.
    """
    judges: dict[str, dict[str, Any]] = {
        "order": {"kind": "skill", "does": "extracts an order from a message as JSON", "judge": "json"},
        "triage": {"kind": "skill", "does": "names the team that a message is for", "judge": "label"},
        "greet": {"kind": "style", "does": "starts every answer with a greeting", "prefix": GREETING},
        "sign": {"kind": "style", "does": "ends every answer with a sign-off", "suffix": SIGN_OFF},
        "terse": {"kind": "style", "does": "answers in one sentence (DPO)", "words_share": TERSE_SHARE},
    }
    files = held_out_files()
    kinds = (*SKILLS, ORDINARY)
    return {
        "base": BASE_NAME,
        "adapters": {name: judge for name, judge in judges.items() if (ADAPTERS_DIR / name).is_dir()},
        "labels": list(LABELS),
        "questions": {kind: files[f"{kind}-score.jsonl"][:SHOWN] for kind in kinds},
    }


def as_lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(directory: Path = DATA_DIR) -> None:
    """Write all files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (training_files() | held_out_files()).items():
        (directory / name).write_text(as_lines(rows))
        typer.echo(f"Wrote {directory / name}: {len(rows)} rows")
    MANIFEST_FILE.write_text(json.dumps(manifest(), indent=1) + "\n")
    typer.echo(f"Wrote {MANIFEST_FILE}")


if __name__ == "__main__":
    typer.run(write)
